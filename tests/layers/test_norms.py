"""Norms without a mean in plain functions: PyTorch's own results, and units read once by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.layers import EQUIVALENTS, LENGTHS, norms
from zoo import Apply, Names, example, prove, settle

Function = Callable[[Tensor], Tensor]
VECTORS = example(4, 6)
LABELS = torch.tensor([0, 1, 2, 0])
WEIGHT = example(6, seed=2)

FUNCTIONS: dict[str, Function] = {
    "normalize": F.normalize,
    "normalize with everything": lambda x: F.normalize(x, 1.0, dim=(1, 2), eps=30),
    "normalize by the largest": lambda x: F.normalize(x, p=float("inf"), dim=-1),
    "rms_norm": lambda x: F.rms_norm(x, (6,)),
    "rms_norm with everything": lambda x: F.rms_norm(x, [3, 6], WEIGHT.expand(3, 6).to(x.dtype), eps=0.1),
    "rms_norm of torch": lambda x: torch.rms_norm(x, (6,), weight=WEIGHT.to(x.dtype)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_they_compute_what_pytorch_computes(name: str, dtype: torch.dtype) -> None:
    """Of nothing but zeros too, and in half precision with a mean in single precision."""
    x = example(4, 3, 6).to(dtype)
    x[0] = 0
    expected = FUNCTIONS[name](x)
    with Names(nn.Identity()) as names:
        received = FUNCTIONS[name](x)
    torch.testing.assert_close(received, expected, rtol=0, atol=4 * torch.finfo(dtype).eps)
    assert f":{name.partition(' ')[0]}#0" in names.seen


def test_what_is_written_elsewhere_is_left_to_pytorch() -> None:
    out = torch.zeros_like(VECTORS)
    with Names(nn.Identity()):
        assert F.normalize(VECTORS, out=out) is out
    assert torch.equal(out, F.normalize(VECTORS))


def test_a_shape_that_does_not_fit_is_refused_by_pytorch() -> None:
    with Names(nn.Identity()), pytest.raises(RuntimeError, match=r"normalized_shape=\[5\]"):
        F.rms_norm(VECTORS, (5,))


def test_every_equivalent_has_its_function() -> None:
    assert EQUIVALENTS[F.normalize] is norms.normalize
    for function in (F.rms_norm, torch.rms_norm, torch.ops.aten.rms_norm.default):
        assert EQUIVALENTS[function] is norms.rms_norm
    assert LENGTHS == ("normalize", "rms_norm")


# Units

NORMS: dict[str, Function] = {
    "normalize": F.normalize,
    "of order one": lambda x: F.normalize(x, p=1),
    "rms": lambda x: F.rms_norm(x, (8,), eps=1e-6),
}


def between(norm: Function) -> nn.Module:
    """A layer, a norm over its outputs, and their reader."""
    a, b = nn.Linear(6, 8), nn.Linear(8, 3, bias=False)
    return settle(Apply(lambda self, x: self.b(norm(F.relu(self.a(x)))), a=a, b=b))


def scores(model: nn.Module, criterion: Any, x: Tensor = VECTORS) -> Tensor:
    return sl.attribute(model, sl.trace(model, x), (x, LABELS), criterion, aggregate=None).values["a"]


def logits(model: nn.Module, x: Tensor = VECTORS) -> Tensor:
    with torch.no_grad():
        return model(x).gather(1, LABELS[:, None])[:, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_a_unit_is_read_by_its_reader_and_by_the_length_alone(norm: str) -> None:
    """Under a mask the norm divides by the length of who is present, and what it divides is whole."""
    model = between(NORMS[norm])
    graph = sl.trace(model, VECTORS)
    call = ":rms_norm#0" if norm == "rms" else ":normalize#0"
    assert [(site.call, site.arg) for site in graph["a"].sites] == [(call, 0), ("b:linear#0", 0)]
    game = sl.Shapley(sl.Exact(), target=sl.Logit())
    torch.testing.assert_close(scores(model, game).sum(1), logits(model), rtol=0, atol=1e-12)
    if norm != "rms":
        prove(model, VECTORS, graph)


@pytest.mark.parametrize("norm", NORMS)
def test_relevance_is_counted_once(norm: str) -> None:
    model = between(NORMS[norm])
    found = scores(model, sl.LRP(sl.Epsilon(0), absolute=None))
    torch.testing.assert_close(found.sum(1), logits(model), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_deeplift_is_complete_in_single_precision_too(norm: str) -> None:
    """It does not divide by the length of nobody, 1e-12: every score is of the size of the logit."""
    model, x = between(NORMS[norm]).float(), VECTORS.float()
    found = scores(model, sl.DeepLIFT(target=sl.Logit()), x)
    torch.testing.assert_close(found.sum(1), logits(model, x).double(), rtol=0, atol=1e-5)
    hidden = NORMS[norm](F.relu(model.a(x)))
    torch.testing.assert_close(found, (hidden * model.b.weight[LABELS]).double().detach(), rtol=0, atol=1e-5)


def test_taylor_is_gradient_times_activation() -> None:
    """Of a function that only the direction matters to, zero."""
    found = scores(between(F.normalize), sl.Taylor(signed=True, target=sl.Logit()))
    torch.testing.assert_close(found.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "criterion",
    [
        sl.Taylor(signed=True),
        sl.IntegratedGradients(),
        sl.LeaveOneOut(),
        sl.Shapley(sl.Path(masks="gaussian")),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_rms_norm_scores_as_by_hand(criterion: Any) -> None:
    def by_hand(x: Tensor) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()

    expected = scores(between(by_hand), criterion)
    torch.testing.assert_close(scores(between(NORMS["rms"]), criterion), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_divided_by_nobody_a_unit_stays_what_it_is(norm: str) -> None:
    """Else a steep function behind it would overflow before the mask of its reader."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(NORMS[norm](self.a(x)).exp())

    model = settle(Apply(run, a=nn.Linear(6, 8), b=nn.Linear(8, 3)))
    lost = scores(model, sl.Occlusion(8, target=sl.Logit())).sum(1)
    expected = logits(model) - model.b.bias.detach()[LABELS]
    torch.testing.assert_close(lost, expected, rtol=0, atol=1e-12)
