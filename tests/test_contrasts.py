"""Differences from a baseline: complete, by one backward for all groups, and those of other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shapleaf as sl
from shapleaf import contrasts
from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.testing import untouched
from zoo import NETS, Apply, Shortcut, conv, example, head, settle

X, Y = example(4, 2, 8, 8), torch.tensor([0, 1, 2, 0])
X0 = example(1, 2, 8, 8, seed=5)
TRUE = sl.Logit()
EXACT = {"rtol": 0, "atol": 1e-14}


def smooth() -> nn.Module:
    """A chain: all that is read goes through every group."""
    return settle(
        nn.Sequential(
            *(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(conv(4, 5), nn.Sigmoid(), conv(5, 5), nn.Tanh(), head(5)),
        )
    )  # fmt: skip


def score(model: nn.Module, criterion: sl.Criterion, name: str = "0") -> Tensor:
    return sl.attribute(model, sl.trace(model, X), [(X, Y)], criterion, aggregate=None).values[name]


def without(model: nn.Module, group: Any, data: Any, removal: Any, **options: Any) -> Tensor:
    """What each example loses with all units of a group."""
    graph = sl.trace(model, data[0][0])
    options |= {"aggregate": None, "groups": [group.name]}
    whole = sl.attribute(model, graph, data, sl.Occlusion(group.size, removal), **options)
    return whole.values[group.name].sum(1)


def resnet() -> nn.Module:
    blocks = (Shortcut(4, 4, 1), Shortcut(4, 6, 2))
    layers = (conv(3, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), *blocks, head(6))
    return settle(nn.Sequential(*layers))


def squares(output: Any, _: Any) -> Tensor:
    """A cost that every output has a part in."""
    return sum(out.flatten(1).square().sum(1) for out in torch.utils._pytree.tree_leaves(output))  # type: ignore[return-value]


def vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models.vision_transformer")
    small = {
        "image_size": 8,
        "patch_size": 4,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 12,
    }
    return settle(models.VisionTransformer(**small, num_classes=3))


# Completeness


@pytest.mark.parametrize(
    "name",
    ["residual", "dense", "shared", "squeeze_excite", "gated", "transformer"],
)
@pytest.mark.parametrize("removal", [sl.Zero(), sl.CalibrationMean()], ids=repr)
def test_deeplift_sums_to_what_is_lost_without_the_group(name: str, removal: Any) -> None:
    """Residual streams, shared layers, gates, norms and attention among them."""
    model, inputs = NETS[name]()
    graph, data = sl.trace(model, inputs), [(inputs, torch.zeros(len(inputs)))]
    found = sl.attribute(model, graph, data, sl.DeepLIFT(removal), aggregate=None, loss=squares).values
    for group in graph:
        whole = without(model, group, data, removal, loss=squares)
        torch.testing.assert_close(found[group.name].sum(1), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("build", [smooth, vit], ids=lambda build: build.__name__)
def test_deeplift_is_complete_for_the_loss(build: Callable[[], nn.Module]) -> None:
    """Cross-entropy is one more function: captum's hooks leave it out."""
    model = build()
    x = example(4, 3, 8, 8) if build is vit else X
    graph = sl.trace(model, x)
    found = sl.attribute(model, graph, [(x, Y)], sl.DeepLIFT(), aggregate=None).values
    for group in graph:
        whole = without(model, group, [(x, Y)], sl.Zero())
        torch.testing.assert_close(found[group.name].sum(1), whole, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["0", "4", "6"])
def test_from_an_input_the_whole_difference_passes_through_every_layer(name: str) -> None:
    model = smooth()
    with torch.no_grad():
        rise = (model(X) - model(X0)).gather(1, Y[:, None])[:, 0]
    reference = sl.Reference(X0)
    torch.testing.assert_close(
        score(model, sl.DeepLIFT(reference, TRUE), name).sum(1), rise, rtol=0, atol=1e-14
    )
    coarse, fine = (score(model, sl.Conductance(n, reference, TRUE), name).sum(1) - rise for n in (8, 64))
    assert fine.abs().max() < 1e-5
    assert (
        fine.abs().max() <= coarse.abs().max() / 10 or coarse.abs().max() < 1e-15
    )  # read by the logit itself


@pytest.mark.parametrize("norm", [nn.functional.normalize, lambda x: nn.functional.rms_norm(x, (9,))])
def test_norms_measure_each_unit_once(norm: Callable[[Tensor], Tensor]) -> None:
    """Two groups that one norm measures: with one of them gone the other has another length."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.c(norm(torch.cat([self.a(x).tanh(), self.b(x)], 1)))

    model = settle(Apply(run, a=nn.Linear(6, 5), b=nn.Linear(6, 4), c=nn.Linear(9, 3)))
    x, y = example(4, 6), torch.tensor([0, 1, 2, 0])
    data, graph = [(x, y)], sl.trace(model, x)
    found = sl.attribute(model, graph, data, sl.DeepLIFT(target=TRUE), aggregate=None).values
    exact = sl.attribute(model, graph, data, sl.Shapley(sl.Exact(), target=TRUE), aggregate=None).values
    for name in ("a", "b"):
        torch.testing.assert_close(found[name].sum(1), exact[name].sum(1), rtol=0, atol=1e-4)
    start = sl.Reference(example(1, 6, seed=5))
    with torch.no_grad():
        expected = (model(x) - model(start.inputs)).gather(1, y[:, None])[:, 0]
    for criterion in (sl.DeepLIFT(start, TRUE), sl.Conductance(400, start, TRUE)):
        values = sl.attribute(model, graph, data, criterion, aggregate=None).values.values()
        torch.testing.assert_close(sum(v.sum(1) for v in values), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("criterion", [sl.DeepLIFT, sl.Conductance], ids=lambda kind: kind.__name__)
def test_what_passes_through_two_reads_of_a_group_counts_twice(criterion: Any) -> None:
    """Of ``h + 2 h``: side by side 1 + 2 is the whole difference; behind each other 2, and again all 3."""
    beside = Apply(lambda self, x: self.one(h := self.a(x)) + self.two(h), **lines(a=1, one=1, two=2))
    behind = Apply(lambda self, x: self.out((h := self.a(x)) + self.two(h)), **lines(a=1, two=2, out=1))
    data = (torch.ones(1, 2).double(), torch.zeros(1, dtype=torch.long))
    reference = {"removal" if criterion is sl.DeepLIFT else "baseline": sl.Reference()}
    for model, total in ((beside, 3), (behind, 5)):
        assert model(data[0]).tolist() == [[3, 3]]
        graph = sl.trace(model, data[0])
        scores = sl.attribute(model, graph, data, criterion(**reference, target=TRUE), aggregate=sl.Mean())
        assert float(scores.values["a"].sum()) == pytest.approx(total)


def lines(**slopes: float) -> dict[str, nn.Module]:
    """Functions of each of two numbers, ``slope * x``."""
    made: dict[str, nn.Module] = {name: nn.Linear(2, 2, bias=False).double() for name in slopes}
    for name, slope in slopes.items():
        made[name].weight.data = slope * torch.eye(2).double()
    return made


def test_linear_models_have_one_answer() -> None:
    """Section 11 of the specification, test 6: behind a linear suffix all coincide."""
    model = settle(
        nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.BatchNorm2d(5), nn.AvgPool2d(2), head(5))
    )
    expected = score(model, sl.Taylor(signed=True, target=TRUE))
    for criterion in (
        sl.DeepLIFT(target=TRUE),
        sl.IntegratedGradients(2, target=TRUE),
        sl.LeaveOneOut(target=TRUE),
        sl.Shapley(sl.Exact(), target=TRUE),
    ):
        torch.testing.assert_close(score(model, criterion), expected, rtol=0, atol=1e-13)
    readout = score(model, sl.DeepLIFT(target=TRUE), "2")
    torch.testing.assert_close(
        readout, score(model, sl.Taylor(signed=True, target=TRUE), "2"), rtol=0, atol=1e-13
    )


# Other libraries, in double precision


@pytest.fixture
def captum() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("captum.attr")


def per_unit(values: Tensor) -> Tensor:
    return values.detach().flatten(2).sum(2)


def test_captum_gradients(captum: Any) -> None:
    model = smooth()
    suffix, z = model[4:], model[:4](X).detach()
    slopes = per_unit(captum.Saliency(suffix).attribute(z, target=Y))
    torch.testing.assert_close(score(model, sl.Saliency(TRUE)), slopes, **EXACT)
    product = per_unit(captum.InputXGradient(suffix).attribute(z, target=Y))
    torch.testing.assert_close(score(model, sl.GradientActivation(True, target=TRUE)), product, **EXACT)


@pytest.mark.parametrize("points", [4, 32])
def test_captum_integrated_gradients(captum: Any, points: int) -> None:
    model = smooth()
    suffix, z = model[4:], model[:4](X).detach()
    options = {"target": Y, "n_steps": points, "method": "gausslegendre"}
    found = per_unit(captum.IntegratedGradients(suffix).attribute(z, **options))
    expected = score(model, sl.IntegratedGradients(points, target=TRUE))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)  # captum's nodes are rounded
    base = captum.IntegratedGradients(suffix).attribute(z, model[:4](X0).detach(), **options)
    from_input = score(model, sl.IntegratedGradients(points, sl.Reference(X0), TRUE))
    torch.testing.assert_close(per_unit(base), from_input, rtol=0, atol=1e-8)


def test_captum_deeplift(captum: Any) -> None:
    """From absent units and from an input; the latter through a max-pool.

    Captum 0.9 loses a part where something nonlinear is behind the pool: its sum is then not the difference.
    """
    model = smooth()
    suffix, z = model[4:], model[:4](X).detach()
    zeros = per_unit(captum.DeepLift(suffix).attribute(z, torch.zeros_like(z), target=Y))
    torch.testing.assert_close(score(model, sl.DeepLIFT(target=TRUE)), zeros, **EXACT)
    pooling = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.MaxPool2d(2), head(5)))
    base = X0.expand_as(X).contiguous()
    found = per_unit(captum.LayerDeepLift(pooling, pooling[1]).attribute(X, base, target=Y))
    torch.testing.assert_close(score(pooling, sl.DeepLIFT(sl.Reference(X0), TRUE)), found, **EXACT)


def test_captum_conductance(captum: Any) -> None:
    """Captum's sum takes the slope at the start of each part; there and back it is that of both ends."""
    model = smooth()
    base = X0.expand_as(X).contiguous()
    layer = captum.LayerConductance(model, model[3])
    options = {"target": Y, "n_steps": 100, "method": "riemann_trapezoid"}
    there, back = layer.attribute(X, base, **options), layer.attribute(base, X, **options)
    found = score(model, sl.Conductance(100, sl.Reference(X0), TRUE))
    torch.testing.assert_close(found, per_unit(there - back) / 2, rtol=0, atol=1e-5)  # of .015


def test_captum_ablation(captum: Any) -> None:
    model = smooth()
    suffix, z = model[4:], model[:4](X).detach()
    mask = torch.arange(4)[None, :, None, None]
    found = captum.FeatureAblation(suffix).attribute(z, target=Y, feature_mask=mask)[:, :, 0, 0]
    torch.testing.assert_close(score(model, sl.Occlusion(target=TRUE)), found.detach(), **EXACT)


# Passes


@contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """Forwards of the model, and backwards through it."""
    counts = {"forward": 0, "backward": 0}

    def back(_: Tensor) -> None:
        counts["backward"] += 1

    def hook(module: nn.Module, _: Any, output: Tensor) -> None:
        counts["forward"] += 1
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(hook)
    try:
        yield counts
    finally:
        handle.remove()


@pytest.mark.parametrize("build", [resnet, vit], ids=["resnet", "vit"])
@pytest.mark.parametrize(
    ("criterion", "forwards", "backwards"),
    [
        (sl.Saliency(TRUE), 1, 1),
        (sl.GradientActivation(True, sl.Zero(), TRUE), 1, 1),
        *((sl.LRP(rule), 1, 1) for rule in (sl.Epsilon(), sl.ZPlus(), sl.Gamma(), sl.AlphaBeta())),
        (sl.LRP(sl.preset_composite("cp-lrp"), absolute="token"), 1, 1),
        (sl.DeepLIFT(sl.Reference(), TRUE), 2, 1),  # the reference has a forward of its own
        (sl.Conductance(3, target=TRUE), 5, 3),  # the ends have no backward
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_forward_and_one_backward_serve_all_units(
    build: Callable[[], nn.Module], criterion: sl.Criterion, forwards: int, backwards: int
) -> None:
    model, x = build(), example(4, 3, 8, 8)
    graph = sl.trace(model, x)
    assert len(graph.groups) > 3
    with counted(model) as one:
        sl.attribute(model, graph, [(x[:2], Y[:2])], criterion)
    with counted(model) as two:  # on the first batch examples are also checked not to influence each other
        sl.attribute(model, graph, [(x[:2], Y[:2]), (x[2:], Y[2:])], criterion)
    assert two["forward"] - one["forward"] == forwards
    assert two["backward"] - one["backward"] == backwards


# What it refuses, and what it leaves


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    layers = {"a": nn.Linear(6, 7), "b": nn.Linear(7, 7), "c": nn.Linear(7, 3)}
    model = settle(Apply(lambda self, x: self.c(torch.tanh(self.b(self.a(x)))), **layers))
    broken = settle(Apply(lambda self, x: self.c(self.b(self.a(x)).cumprod(1)), **layers))
    x, y = example(3, 6), torch.zeros(3, dtype=torch.long)
    for removal in (sl.Zero(), sl.Reference()):
        with untouched(model):
            sl.attribute(model, sl.trace(model, x), [(x, y)], sl.DeepLIFT(removal))
        with untouched(broken), pytest.raises(CriterionError, match=r"DeepLIFT\(\) cannot .*for 'cumprod'"):
            sl.attribute(broken, sl.trace(broken, x), [(x, y)], sl.DeepLIFT(removal))


def test_what_has_no_gradient_is_named() -> None:
    model = settle(Apply(lambda self, x: self.head(self.a(x)).detach(), a=conv(2, 4), head=head(4)))
    for criterion in (sl.DeepLIFT(), sl.DeepLIFT(sl.Reference()), sl.Conductance(2)):
        with pytest.raises(CriterionError, match="use a criterion without gradients"):
            score(model, criterion, "a")


def test_a_custom_autograd_function_is_refused() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return 2 * gradients[0]

    model = settle(Apply(lambda self, x: Double.apply(self.head(self.a(x))), a=conv(2, 4), head=head(4)))
    with pytest.raises(CriterionError, match=r"DeepLIFT\(\) cannot pass through Double"):
        score(model, sl.DeepLIFT(), "a")


def test_words_have_nothing_between() -> None:
    model, words = NETS["transformer"]()
    graph, y = sl.trace(model, words), torch.zeros(2, dtype=torch.long)
    reference = sl.Reference(words[:1].roll(1))
    with pytest.raises(DataError, match="whole numbers, such as words, have nothing between"):
        sl.attribute(model, graph, [(words, y)], sl.Conductance(2, reference))
    found = sl.attribute(model, graph, [(words, y)], sl.DeepLIFT(reference), aggregate=None)
    assert all(bool(values.abs().sum() > 0) for values in found.values.values())


def test_baselines_of_another_shape() -> None:
    for criterion in (sl.DeepLIFT(sl.Reference(X0[..., :6])), sl.Conductance(2, sl.Reference(X0[..., :6]))):
        with pytest.raises(DataError, match=r"have shapes \[\(2, 8, 8\)\], the reference \[\(2, 8, 6\)\]"):
            score(smooth(), criterion)


def test_units_that_no_cost_depends_on_count_nothing() -> None:
    model, inputs = NETS["multi_output"]()
    graph = sl.trace(model, inputs)

    def first(output: Any, _: Any) -> Tensor:
        return squares(torch.utils._pytree.tree_leaves(output)[0], None)

    batch = Batch(inputs, torch.zeros(len(inputs)))
    by_group = contrasts.rescaled(model, graph.groups, batch, first, {})
    from_input = contrasts.rescaled_from(model, graph.groups, batch, first, torch.zeros_like(inputs[:1]))
    along = contrasts.conductances(model, graph.groups, batch, first, torch.zeros_like(inputs[:1]), 2)
    for group in graph:
        idle = not bool(by_group[group.name].any())
        assert idle == (not bool(from_input[group.name].any())) == (not bool(along[group.name].any()))
