"""The network behind a group: full forwards are the reference, the replayed prefix must not differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import shapleaf as sl
from shapleaf import _context
from shapleaf.data import Batch
from shapleaf.errors import CriterionError, DataError
from shapleaf.game.suffix import Suffix
from shapleaf.masking import Gates
from shapleaf.records import Group, Site
from shapleaf.testing import untouched
from zoo import Apply, conv, head, settle

X = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 2, 1, 1, 0])
MASKS = torch.rand(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain() -> nn.Module:
    """Four channels after the first convolution."""
    return settle(nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))


def play(
    model: nn.Module, name: str = "0", inputs: Any = X, first: int = 0, traced: Any = None, **options: Any
) -> Suffix:
    """The game at a group, as attribute makes it."""
    group = sl.trace(traced or model, X)[name]
    with _context.inference(model):
        return Suffix(model, group, Batch(inputs, Y, first), _context.cross_entropy, **options)


def reference(model: nn.Sequential, mask: Tensor, after: int = 3) -> Tensor:
    """The loss with the mask laid on the output of the first layers by hand."""
    hidden = model[:after](X)
    loss: Tensor = F.cross_entropy(model[after:](hidden * mask[:, :, None, None]), Y, reduction="none")
    return loss


def test_losses_and_gradients_are_those_of_the_masked_network() -> None:
    model, game = plain(), play(plain())
    mask = MASKS.clone().requires_grad_()
    expected = reference(model, mask)
    (slopes,) = torch.autograd.grad(expected.sum(), mask)
    assert game.cached
    torch.testing.assert_close(game.loss(MASKS), expected.detach(), rtol=0, atol=1e-12)
    loss, gradient = game.gradient(MASKS)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, slopes, rtol=0, atol=1e-12)


def test_each_example_obeys_its_own_mask() -> None:
    game = play(plain())
    one = MASKS.clone()
    one[2] = 0
    changed = game.loss(one) != game.loss(MASKS)
    assert changed.tolist() == [False, False, True, False, False]


def test_results_do_not_need_gradients_and_masks_stay_the_callers() -> None:
    game, mask = play(plain()), MASKS.clone()
    loss, gradient = game.gradient(mask)
    assert [t.requires_grad for t in (loss, gradient, game.loss(mask))] == [False] * 3
    mask.zero_()
    assert not torch.equal(game.loss(mask), loss)


def test_absent_units_leave_their_fill_behind() -> None:
    model = plain()
    gates = Gates(sl.trace(model, X).groups)
    fill = sl.CalibrationMean().fill(model, gates, [(X, Y)])
    mean = model[:3](X).mean((0, 2, 3), keepdim=True)
    keep = (MASKS > 0.5).double()
    mask = keep[:, :, None, None]
    expected = F.cross_entropy(model[3:](model[:3](X) * mask + mean * (1 - mask)), Y, reduction="none")
    torch.testing.assert_close(play(model, fill=fill).loss(keep), expected.detach(), rtol=0, atol=1e-12)


# The prefix runs once


def test_the_prefix_is_answered_from_memory() -> None:
    model = settle(
        nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5))
    )
    game = play(model, "2")
    ran: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            ran.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Watch():
        game.loss(MASKS)
    assert game.cached
    assert ran.count("convolution") == 1  # of three


def test_only_what_is_still_read_stays_in_memory() -> None:
    model = settle(
        nn.Sequential(conv(3, 6), nn.ReLU(), conv(6, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5))
    )
    game = play(model, "2")
    kept = {
        out.untyped_storage().data_ptr(): out.untyped_storage().nbytes()
        for _, out in game._prefix
        if isinstance(out, Tensor)
    }
    assert max(kept.values()) == 5 * 4 * 36 * 8  # what the third convolution reads
    assert sorted(kept.values())[-2] <= 8


# Models that a record could betray: the same losses as by full forwards in every case


def _plain(self: Any, x: Tensor) -> Tensor:
    return self.head(self.b(F.relu(self.a(x))))


def _skip(self: Any, x: Tensor) -> Tensor:
    h = F.relu(self.a(x))
    return self.head(F.relu(self.b(h)) + self.skip(x))


def _writes_after(self: Any, x: Tensor) -> Tensor:
    h = F.relu(self.a(x))
    out = self.b(h)
    h.mul_(2)
    return self.head(F.relu(out) + self.c(h))


def _writes_a_little(self: Any, x: Tensor) -> Tensor:
    h = F.relu(self.a(x))
    out = self.b(h)
    h.mul_(1 + 1e-7)  # replayed a thousand times it would be much
    return self.head(F.relu(out) + self.c(h))


def _writes_before(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    h.relu_().add_(0.5)
    return self.head(self.b(h))


def _writes_inputs(self: Any, x: Tensor) -> Tensor:
    x.mul_(1.5)
    return self.head(self.b(F.relu(self.a(x))) + self.skip(x))


def _writes_view(self: Any, x: Tensor) -> Tensor:
    h = F.relu(self.a(x))
    part = h[:, :, 2:]
    out = self.b(h)
    part.mul_(0.5)
    return self.head(out + self.c(h))


def _random_before(self: Any, x: Tensor) -> Tensor:
    return self.head(self.b(F.relu(self.a(x) + torch.rand_like(x[:, :1]))))


def _random_after(self: Any, x: Tensor) -> Tensor:
    return self.head(self.b(F.relu(self.a(x))) + torch.rand_like(x[:, :1]))


def _random_both(self: Any, x: Tensor) -> Tensor:
    h = F.relu(self.a(x) + torch.rand_like(x[:, :1]))
    return self.head(self.b(h) + torch.rand_like(x[:, :1]))


def _branches_on_data(self: Any, x: Tensor) -> Tensor:
    h = self.a(x)
    h = F.relu(h) if x.mean() > 0 else F.relu(h) * 0.5
    y = self.b(h)
    return self.head(y if float(y.detach().abs().sum()) > 1e-9 else y + 1)


def _uses_numbers(self: Any, x: Tensor) -> Tensor:
    scale = x.max().item()
    return self.head(self.b(F.relu(self.a(x))) / scale)


def _returns_prefix(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return self.head(F.relu(self.b(F.relu(self.a(x))))), self.skip(x)


def _returns_prefix_first(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    first = self.head(self.skip(x))
    return first, self.head(F.relu(self.b(F.relu(self.a(x)))))


def _keeps_state(self: Any, x: Tensor) -> Tensor:
    self.mean = 0.9 * self.mean + 0.1 * x.mean()
    return self.head(self.b(F.relu(self.a(x))) - self.mean)


def two_convs(run: Callable[..., Any]) -> nn.Module:
    model = Apply(run, a=conv(3, 4), b=conv(4, 5), c=conv(4, 5, 1), skip=conv(3, 5), head=head(5))
    model.register_buffer("mean", torch.zeros(()))
    return settle(model)


@pytest.mark.parametrize(
    ("run", "cached"),
    [
        (_skip, True),
        (_writes_before, True),
        (_random_before, True),
        (_branches_on_data, True),
        (_uses_numbers, True),
        (_returns_prefix, True),
        (_writes_after, False),
        (_writes_view, False),
        (_writes_a_little, False),
        (_random_both, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_replay_equals_the_full_forward(run: Callable[..., Any], cached: bool) -> None:
    model = two_convs(run)
    # Code that reads values is not traced; its calls are those of the plain one.
    traced = two_convs(_plain) if run in (_branches_on_data, _uses_numbers) else None
    game, full = (play(model, "a", traced=traced) for _ in range(2))
    assert game.cached is cached
    full.cached = False
    with untouched(model), _context.inference(model):
        for mask in (MASKS, torch.ones_like(MASKS), torch.zeros_like(MASKS), MASKS):
            assert torch.equal(game.loss(mask), full.loss(mask))
            if run in (_writes_after, _writes_view, _writes_a_little):
                with pytest.raises(CriterionError, match="its gradient cannot be taken .*inplace"):
                    game.gradient(mask)
                continue
            loss, gradient = game.gradient(mask)
            expected, slopes = full.gradient(mask)
            assert torch.equal(loss, expected)
            torch.testing.assert_close(gradient, slopes, rtol=0, atol=1e-13)


@pytest.mark.parametrize("run", [_random_before, _random_after, _random_both])
def test_random_numbers_are_the_same_for_every_coalition(run: Callable[..., Any]) -> None:
    model = two_convs(run)
    with _context.inference(model):
        game = play(model, "a")
        assert torch.equal(game.loss(MASKS), game.loss(MASKS))


def test_a_model_that_writes_into_its_inputs_leaves_them() -> None:
    model, mine = two_convs(_writes_inputs), X.clone()
    with _context.inference(model):
        game = play(model, "a", mine)
        first = game.loss(MASKS)
        assert torch.equal(game.loss(MASKS), first)
    assert torch.equal(mine, X)
    expected = F.cross_entropy(model(X.clone()), Y, reduction="none")
    torch.testing.assert_close(game.loss(torch.ones_like(MASKS)), expected.detach(), rtol=0, atol=1e-12)


def test_a_loss_on_what_the_prefix_left() -> None:
    """The first output never meets the units; without care it would be released and read as NaN."""
    model = two_convs(_returns_prefix_first)
    game = play(model, "a")
    assert game.cached
    expected = F.cross_entropy(model(X)[0], Y, reduction="none").detach()
    assert torch.equal(game.loss(MASKS), expected)
    with pytest.raises(CriterionError, match="does not depend on the units in a differentiable way"):
        game.gradient(MASKS)


class Alternates(nn.Module):
    """Calls another function from the third forward on, which no first look can see."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 4), conv(4, 5), head(5)
        self.forwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        x = x * 1 if self.forwards <= 2 else x + 0
        y: Tensor = self.head(F.relu(self.b(F.relu(self.a(x)))))
        return y


def test_a_prefix_that_changes_later_is_given_up() -> None:
    model = settle(Alternates())
    group = sl.trace(model, X)["a"]
    model.forwards = 0
    with _context.inference(model):
        game = Suffix(model, group, Batch(X, Y), _context.cross_entropy)
        assert game.cached
        loss = game.loss(torch.ones_like(MASKS))
        assert not game.cached
        expected = F.cross_entropy(model(X), Y, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


def test_what_no_function_call_shows_is_not_replayed() -> None:
    """Scripted code reads tensors unseen: a released tensor must not reach it."""

    def scripted(x: Tensor) -> Tensor:
        return torch.relu(x) + 1

    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        function = torch.jit.script(scripted)
    model = settle(
        Apply(
            lambda self, x: self.head(self.b(function(self.a(x)))), a=conv(3, 4), b=conv(4, 5), head=head(5)
        )
    )
    group = sl.trace(model, X)["a"]
    game = Suffix(model, group, Batch(X, Y), _context.cross_entropy)
    expected = F.cross_entropy(model(X), Y, reduction="none")
    torch.testing.assert_close(game.loss(torch.ones_like(MASKS)), expected.detach(), rtol=0, atol=1e-12)


def test_players_at_the_very_beginning_have_no_prefix() -> None:
    """The channels of the input itself, as the first convolution reads them."""
    model = plain()
    site = Site(call="0:conv2d#0", arg=0, index=torch.arange(3)[:, None, None])
    game = Suffix(
        model, Group(name="input", size=3, slices=(), sites=(site,)), Batch(X, Y), _context.cross_entropy
    )
    assert not game.cached
    expected = F.cross_entropy(model(X * MASKS[:, :3, None, None]), Y, reduction="none")
    torch.testing.assert_close(game.loss(MASKS[:, :3]), expected.detach(), rtol=0, atol=1e-12)


def test_units_that_several_consumers_read_are_masked_in_all() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.head(F.relu(self.b(h)) + self.c(h))

    model = settle(Apply(run, a=conv(3, 4), b=conv(4, 5), c=conv(4, 5, 1), head=head(5)))
    game = play(model, "a")
    h = F.relu(model.a(X)) * MASKS[:, :, None, None]
    expected = F.cross_entropy(model.head(F.relu(model.b(h)) + model.c(h)), Y, reduction="none")
    torch.testing.assert_close(game.loss(MASKS), expected.detach(), rtol=0, atol=1e-12)


def test_a_residual_stream_is_masked_at_every_reader_but_flows_on() -> None:
    """Removing a unit of the stream is each reader no longer seeing it, wherever it was written."""

    def run(self: Any, x: Tensor) -> Tensor:
        s = self.stem(x)
        s = s + self.b(F.relu(self.a(s)))
        return self.head(s)

    model = settle(Apply(run, stem=conv(3, 4), a=conv(4, 6), b=conv(6, 4), head=head(4)))
    game = play(model, "stem")
    mask = MASKS[:, :, None, None]
    s = model.stem(X)
    s = s + model.b(F.relu(model.a(s * mask)))
    expected = F.cross_entropy(model.head(s * mask), Y, reduction="none")
    torch.testing.assert_close(game.loss(MASKS), expected.detach(), rtol=0, atol=1e-12)


# Errors


def test_a_detached_model_has_no_gradient() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(x)))).detach())

    model = settle(Apply(run, a=conv(3, 4), b=conv(4, 5), head=head(5)))
    with pytest.raises(CriterionError, match=r"use an estimator without gradients, such as Permutation\(\)"):
        play(model, "a").gradient(MASKS)


def test_a_loss_that_is_not_per_example_shows_at_once() -> None:
    model = plain()
    with pytest.raises(CriterionError, match=r"expected shape \(5,\), received \(\)"):
        Suffix(model, sl.trace(model, X)["0"], Batch(X, Y), F.cross_entropy)


def test_inputs_that_do_not_fit_show_at_once() -> None:
    model = plain()
    with pytest.raises(DataError, match=r"the model failed on inputs of \(5, 2, 6, 6\)"):
        Suffix(model, sl.trace(model, X)["0"], Batch(X[:, :2], Y), _context.cross_entropy)
