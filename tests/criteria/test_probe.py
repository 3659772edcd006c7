"""What a criterion gets to see: the right units in the right places, and only what it declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.criteria import Criterion, Needs, Probe
from shapleaf.errors import CriterionError
from shapleaf.records import Group, Slice
from zoo import Apply, conv, head, settle

X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2])


@dataclass(frozen=True)
class Spy:
    """Shows every probe to a function, which returns the scores."""

    look: Callable[[Probe], Any]
    needs: Needs = Needs.ACTIVATION  # type: ignore[misc]

    def score(self, probe: Probe) -> Any:
        return self.look(probe)


def seen(model: nn.Module, read: Callable[[Probe], Any], needs: Needs, name: str, inputs: Any = X) -> Any:
    """What the probe of one group shows."""
    found = []

    def look(probe: Probe) -> Tensor:
        found.append(read(probe))
        return torch.zeros(len(inputs), probe.group.size)

    graph = sl.trace(model, inputs)
    sl.attribute(model, graph, [(inputs, Y)], Spy(look, needs), groups=[name])
    return found[0]


def small() -> nn.Module:
    return settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))


def test_the_protocol_needs_no_base_class() -> None:
    @dataclass(frozen=True)
    class Mine:
        needs: ClassVar[Needs] = Needs.NOTHING

        def score(self, probe: Probe) -> Tensor:
            return torch.zeros(probe.group.size)

    class Silent:
        needs = Needs.NOTHING

    assert isinstance(Mine(), Criterion)
    assert not isinstance(Silent(), Criterion)


def test_activations_are_examples_units_positions() -> None:
    model = small()
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "0")
    assert torch.equal(activation, model[:2](X).flatten(2))


def test_positions_behind_flatten_belong_to_their_channel() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)))
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "0")
    assert torch.equal(activation, model[:3](X).flatten(2))


def test_concatenated_groups_see_their_own_part() -> None:
    model = settle(
        Apply(
            lambda self, x: self.c(torch.cat([F.relu(self.a(x)), F.relu(self.b(x))], 1)).mean((2, 3)),
            a=conv(2, 4), b=conv(2, 3), c=conv(7, 3),
        )
    )  # fmt: skip
    for name in ("a", "b"):
        activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, name)
        assert torch.equal(activation, F.relu(getattr(model, name)(X)).flatten(2))


def test_a_unit_sees_the_channels_it_owns_wherever_they_were_shuffled_to() -> None:
    """The shuffle couples channels: units of two, which lie apart when they are read."""

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x)).unflatten(1, (3, 2)).transpose(1, 2).flatten(1, 2)).mean((2, 3))

    model = settle(Apply(run, a=conv(2, 6), b=conv(6, 3)))
    graph = sl.trace(model, X)
    (owned,) = (piece.index for piece in graph["a"].slices if piece.tensor == "a.weight")
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "a")
    hidden = F.relu(model.a(X)).detach()
    expected = torch.stack([hidden[:, channels].flatten(1) for channels in owned], 1)
    assert graph["a"].size < 6
    assert torch.equal(activation.sort(2).values, expected.sort(2).values)


def test_rows_of_one_example_are_its_positions() -> None:
    """Code that folds the tokens into the first axis still shows each example its own."""

    def run(self: Any, x: Tensor) -> Tensor:
        rows = F.relu(self.a(x.flatten(2).transpose(1, 2).reshape(-1, 2)))
        return self.b(rows).view(len(x), -1, 3).mean(1)

    model = settle(Apply(run, a=nn.Linear(2, 4), b=nn.Linear(4, 3)))
    rows = F.relu(model.a(X.flatten(2).transpose(1, 2)))
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "a")
    torch.testing.assert_close(activation, rows.detach().transpose(1, 2), rtol=0, atol=1e-14)
    gradient = seen(model, lambda probe: probe.gradient, Needs.GRADIENT, "a")
    assert gradient.shape == activation.shape


def test_tokens_are_positions() -> None:
    model = settle(
        Apply(lambda self, x: self.b(F.relu(self.a(x))).mean(1), a=nn.Linear(4, 6), b=nn.Linear(6, 3))
    )
    tokens = X[:, 0]
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "a", tokens)
    assert torch.equal(activation, F.relu(model.a(tokens)).transpose(1, 2))


def test_what_two_consumers_read_is_seen_once() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.head(F.relu(self.b(h)) + self.c(h))

    model = settle(Apply(run, a=conv(2, 4), b=conv(4, 5), c=conv(4, 5), head=head(5)))
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "a")
    assert torch.equal(activation, F.relu(model.a(X)).flatten(2))


def test_different_tensors_of_one_group_are_seen_side_by_side() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        s = self.stem(x)
        return self.head(s + self.b(F.relu(self.a(s))))

    model = settle(Apply(run, stem=conv(2, 4), a=conv(4, 6), b=conv(6, 4), head=head(4)))
    s = model.stem(X)
    after = (s + model.b(F.relu(model.a(s)))).mean((2, 3), keepdim=True)
    activation = seen(model, lambda probe: probe.activation, Needs.ACTIVATION, "stem")
    expected = torch.cat([s.flatten(2), after.flatten(2)], 2)
    torch.testing.assert_close(activation, expected.detach(), rtol=0, atol=1e-14)


def test_gradients_have_the_shape_of_activations_and_masks_that_of_units() -> None:
    model = small()
    shapes = seen(
        model,
        lambda probe: (probe.activation.shape, probe.gradient.shape, probe.mask_gradient.shape),
        Needs.ACTIVATION | Needs.GRADIENT | Needs.MASK_GRADIENT,
        "0",
    )
    assert shapes == ((3, 4, 16), (3, 4, 16), (3, 4))


def test_nothing_seen_drags_a_graph_of_operations_behind_it() -> None:
    tensors = seen(
        small(),
        lambda probe: (probe.activation, probe.gradient, probe.mask_gradient),
        Needs.ACTIVATION | Needs.GRADIENT | Needs.MASK_GRADIENT,
        "0",
    )
    assert [tensor.requires_grad for tensor in tensors] == [False] * 3


def test_ids_count_through_the_data() -> None:
    ids: list[tuple[int, ...]] = []

    def look(probe: Probe) -> Tensor:
        ids.append(probe.ids)
        return torch.zeros(len(probe.ids), probe.group.size)

    model = small()
    data = [(X[:2], Y[:2]), (X[2:], Y[2:])]
    sl.attribute(model, sl.trace(model, X), data, Spy(look), groups=["0"], seed=5)
    assert ids == [(0, 1), (2,)]


@pytest.mark.parametrize("name", ["activation", "gradient", "mask_gradient", "game", "layers", "consumers"])
def test_only_what_was_declared_can_be_read(name: str) -> None:
    needs = Needs.GAME if name != "game" else Needs.MASK_GRADIENT
    message = rf"read probe\.{name} but declares .*{needs.name}.*; add Needs\.{name.upper()} to its needs"
    with pytest.raises(CriterionError, match=message):
        seen(small(), lambda probe: getattr(probe, name), needs, "0")


def test_layers_are_seen_batch_by_batch_as_they_run() -> None:
    """One score per unit, whatever ``aggregate`` says: layers have no examples."""
    model = small()
    ids: list[tuple[int, ...]] = []

    def look(probe: Probe) -> Tensor:
        found = list(probe.layers)
        ids.extend(layer.ids for layer in found)
        reads = torch.cat([layer.linear.rows(layer.linear.input).flatten(0, 2) for layer in found])
        owners = found[0].owners[0]
        sums = torch.zeros(probe.group.size, dtype=reads.dtype)
        return sums.index_add(0, owners, reads.sum(0))

    graph = sl.trace(model, X)
    data = [(X[:2], Y[:2]), (X[2:], Y[2:])]
    scores = sl.attribute(model, graph, data, Spy(look, Needs.LAYERS), groups=["0"])
    whole = sl.attribute(model, graph, (X, Y), Spy(look, Needs.LAYERS), groups=["0"], aggregate=None)
    assert ids == [(0, 1), (2,), (0, 1, 2)]
    assert scores.values["0"].shape == (graph["0"].size,)
    assert torch.allclose(scores.values["0"], whole.values["0"])
    assert (scores.samples, scores.settings["aggregate"]) == (3, "none")


def test_a_criterion_without_needs_reads_weights_only() -> None:
    model = small()
    with pytest.raises(CriterionError, match="read probe.activation but declares"):
        sl.attribute(model, sl.trace(model, X), None, Spy(lambda probe: probe.activation, Needs.NOTHING))


def incoming(model: nn.Module, name: str, inputs: Any = X) -> Tensor:
    weights: Tensor = seen(model, lambda probe: probe.incoming(), Needs.ACTIVATION, name, inputs)
    return weights


def test_incoming_weights_are_those_of_the_producer() -> None:
    model = small()
    assert torch.equal(incoming(model, "0"), model[0].weight.flatten(1))
    assert torch.equal(incoming(model, "2"), model[2].weight.flatten(1))


def test_incoming_weights_of_a_transposed_convolution_lie_along_its_second_axis() -> None:
    model = settle(nn.Sequential(nn.ConvTranspose2d(2, 4, 2), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    assert torch.equal(incoming(model, "0"), model[0].weight.transpose(0, 1).flatten(1))


def test_a_unit_of_several_producers_has_the_weights_of_all() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        s = self.stem(x)
        return self.head(s + self.b(F.relu(self.a(s))))

    model = settle(Apply(run, stem=conv(2, 4), a=conv(4, 6), b=conv(6, 4), head=head(4)))
    assert torch.equal(
        incoming(model, "stem"), torch.cat([model.stem.weight.flatten(1), model.b.weight.flatten(1)], 1)
    )


def test_a_depthwise_convolution_adds_its_own() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 4, groups=4), nn.ReLU(), head(4)))
    assert torch.equal(
        incoming(model, "0"), torch.cat([model[0].weight.flatten(1), model[2].weight.flatten(1)], 1)
    )


def test_a_unit_that_owns_several_rows_has_all_of_them() -> None:
    """Heads of two: unit i owns rows 2 i and 2 i + 1."""
    weight = torch.arange(24.0).view(4, 6)
    model = nn.Linear(6, 4)
    model.weight = nn.Parameter(weight)
    group = Group(
        name="g",
        size=2,
        slices=(Slice(tensor="weight", dim=0, index=torch.tensor([[0, 1], [2, 3]])),),
        sites=(),
    )
    assert torch.equal(Probe(group, model, 0, Needs.NOTHING).incoming(), weight.view(2, 12))


def test_a_group_without_weights_cannot_be_scored_by_them() -> None:
    group = Group(
        name="norm",
        size=4,
        slices=(Slice(tensor="weight", dim=0, index=torch.arange(4)[:, None]),),
        sites=(),
    )
    with pytest.raises(CriterionError, match="group norm has no incoming weights to score"):
        Probe(group, nn.BatchNorm1d(4), 0, Needs.NOTHING).incoming()
