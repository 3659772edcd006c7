"""Masks at the sites: what is seen, what absence leaves, and a model that never notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from shapleaf.errors import DataError
from shapleaf.masking import Gates, Masks, Reader, Removal, Zero
from zoo import NETS, Apply, conv, example, forward, gap, half_plan, head, lived_in, run, settle, state

VECTORS, MAPS = example(40, 6, seed=3), example(12, 3, 6, 6, seed=3)


def test_masking_a_unit_is_multiplying_its_activation_by_zero() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    plan = sl.plan(sl.trace(model, VECTORS[:1]), {"0": [0, 5, 7]})
    mask = torch.zeros(8).double()
    mask[[0, 5, 7]] = 1
    expected = model[2](model[:2](VECTORS) * mask)
    assert torch.allclose(sl.masked(model, plan)(VECTORS), expected, rtol=0, atol=1e-15)


def test_masks_lie_where_units_are_read_not_where_they_are_made() -> None:
    """A unit that is e^0 = 1 without its inputs is absent all the same."""
    model = settle(Apply(lambda self, x: self.b(torch.exp(self.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 3)))
    plan = sl.plan(sl.trace(model, VECTORS[:1]), {"a": [1]})
    expected = model.b.bias + torch.exp(model.a(VECTORS))[:, [1]] @ model.b.weight[:, [1]].T
    assert torch.allclose(sl.masked(model, plan)(VECTORS), expected, rtol=0, atol=1e-14)


def per_example(name: str, group: str, count: int = 5) -> tuple[Tensor, Tensor]:
    """The output under a mask for every example, and example by example."""
    model, inputs = NETS[name]()
    batch = torch.cat([inputs[:1] + 0.1 * i for i in range(count)])
    graph = sl.trace(model, inputs)
    gates = Gates([graph[group]])
    masks = torch.rand(count, graph[group].size, generator=torch.Generator().manual_seed(0)).double()

    def output(x: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad(), Reader(model, gates, Masks({group: mask})):
            return forward(model, x)[0]

    together = output(batch, masks)
    return together, torch.cat([output(batch[i : i + 1], masks[i : i + 1]) for i in range(count)])


@pytest.mark.parametrize(
    ("name", "group"), [("residual", "stem"), ("flatten", "0"), ("shufflenet", "stem"), ("tokens", "embed")]
)
def test_every_example_has_its_own_mask(name: str, group: str) -> None:
    together, alone = per_example(name, group)
    assert gap([together], [alone]) < 1e-13


def test_windows_laid_along_the_examples_take_their_examples_mask() -> None:
    def windows(self: Any, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = F.relu(self.a(x)).reshape(n * 2, t // 2, -1)
        return self.b(x).reshape(n, -1)

    model, x = settle(Apply(windows, a=nn.Linear(3, 5), b=nn.Linear(5, 2))), example(3, 4, 3)
    graph = sl.trace(model, x)
    masks = torch.rand(3, 5).double()
    with torch.no_grad(), Reader(model, Gates(graph), Masks({"a": masks})):
        together = model(x)
    for i in range(3):
        with torch.no_grad(), Reader(model, Gates(graph), Masks({"a": masks[i : i + 1]})):
            assert torch.allclose(model(x[i : i + 1])[0], together[i])


def test_masks_that_do_not_fit_the_examples_are_refused() -> None:
    model, inputs = NETS["mlp"]()
    graph = sl.trace(model, inputs)
    masks = torch.ones(3, 8).double()
    reader = Reader(model, Gates([graph["0"]]), Masks({"0": masks}))
    with pytest.raises(sl.PlanError, match="masks for 3 examples meet an activation of length 2"), reader:
        model(inputs)


def test_gradients_with_respect_to_masks_are_right() -> None:
    model, inputs = NETS["residual"]()
    graph = sl.trace(model, inputs)
    gates = Gates(graph)

    def loss(*masks: Tensor) -> Tensor:
        with Reader(model, gates, Masks(dict(zip([g.name for g in graph], masks, strict=True)))):
            return (model(inputs) ** 2).sum()

    masks = [torch.rand(1, group.size).double().requires_grad_() for group in graph]
    assert torch.autograd.gradcheck(loss, masks)


def test_reads_of_one_tensor_see_one_masked_tensor() -> None:
    model, inputs = NETS["residual"]()
    graph = sl.trace(model, inputs)
    masks = Masks(Gates(graph).ones(1, inputs))
    calls: list[tuple[str, int]] = []

    def replace(place: tuple[str, int], gate: Any, read: Tensor) -> Tensor:
        calls.append((place[0], id(masks(place, gate, read))))
        return masks(place, gate, read)

    with torch.no_grad(), Reader(model, Gates(graph), replace):
        model(inputs)
    seen = dict(calls)
    assert seen["c3:conv2d#0"] == seen["down:conv2d#0"] != seen["c1:conv2d#0"]
    assert len(masks.seen) == len(set(seen.values())) == len(seen) - 1


@pytest.mark.parametrize("square", [lambda x: x.pow(2), lambda x: x**2, torch.square, lambda x: x * x])
def test_random_masks_lie_squared_on_squares(square: Callable[[Tensor], Tensor]) -> None:
    """So the mean of squares that a norm by hand takes is none below zero, which has no root."""

    def normed(self: Any, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(h * (square(h).mean(-1, keepdim=True) + 1e-6).rsqrt())

    model = settle(Apply(normed, a=nn.Linear(6, 3), b=nn.Linear(3, 2)))
    gates = Gates([sl.trace(model, VECTORS[:1])["a"]])
    masks = torch.tensor([[-0.5, 0.25, 1.0], [0.75, 0.25, 1.0]]).double()
    (norm,), (linear,) = (at.values() for at in gates.at.values())
    assert (norm.squares, linear.squares) == (True, False)
    assert torch.equal(linear.factor({"a": masks}, VECTORS[:2]), masks)
    expected = torch.tensor([[0.25, 0.0625, 1.0], [0.75, 0.25, 1.0]]).double()
    assert torch.equal(norm.factor({"a": masks}, VECTORS[:2]), expected)


def test_two_groups_in_one_argument_are_masked_each_by_its_own() -> None:
    model, inputs = NETS["dense"]()
    graph = sl.trace(model, inputs)
    plan = sl.plan(graph, {"stem": [1], "a.2": [0, 2]})
    gate = Gates(plan.graph[name] for name in plan.pruned).at["b.2:conv2d#0"][0]
    assert gate.groups == ("stem", "a.2")
    masks = {name: plan.mask(name)[None].double() for name in plan.pruned}
    assert gate.factor(masks, inputs).flatten().tolist() == [0, 1, 0, 0, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("name", NETS)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model, inputs = NETS[name]()
    plan = half_plan(sl.trace(model, inputs))
    lived_in(model, inputs)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = state(model)
    masked = sl.masked(model, plan)
    run(masked, inputs)
    with pytest.raises((TypeError, AttributeError)):
        masked(*[object()] * 7)
    assert state(model) == before
    assert {id(p) for p in masked.parameters()} == {id(p) for p in model.parameters()}


@pytest.mark.filterwarnings("ignore:compensation made the")  # nothing is trained here
def test_attribution_and_pruning_leave_it_as_it_was_too() -> None:
    model = settle(
        nn.Sequential(
            conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(), conv(4, 5), nn.ReLU(), head(5)
        )
    )
    data = [(MAPS, torch.arange(12) % 3)]
    graph = sl.trace(model, MAPS[:1])
    lived_in(model, MAPS)
    before = state(model)
    for criterion in (sl.WeightNorm(), sl.Taylor(), sl.Shapley(sl.Permutation(samples=2))):
        scores = sl.attribute(model, graph, data, criterion)
        sl.prune(model, sl.allocate(scores, sl.Units(keep=0.5)), compensate=sl.FoldMean(data))
        assert state(model) == before, criterion
    with pytest.raises(sl.ShapleafError):
        sl.attribute(model, graph, [(MAPS, torch.full((12,), 99))], sl.Taylor())
    assert state(model) == before


def test_in_train_mode_the_same_places_are_masked() -> None:
    """Only what does not run in eval mode sees all units."""
    for name, outputs in (("residual", 1), ("auxiliary", 1)):
        model, inputs = NETS[name]()
        inputs = torch.cat([inputs, inputs + 1])
        plan = half_plan(sl.trace(model, inputs))
        pruned = sl.prune(model, plan).model.train()
        masked = sl.masked(model.train(), plan)
        assert masked.training
        assert gap(run(masked, inputs)[:outputs], run(pruned, inputs)[:outputs]) < 1e-12


def test_calibration_means_replace_what_is_absent() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    plan = sl.plan(sl.trace(model, VECTORS[:1]), {"0": range(4)})
    with torch.no_grad():
        hidden = model[:2](VECTORS)
        filled = torch.cat([hidden[:, :4], hidden.mean(0)[4:].expand(40, 4)], 1)
        expected = model[2](filled)
    for data in ([VECTORS], [VECTORS[:9], VECTORS[9:]], [(VECTORS, torch.zeros(40))]):
        masked = sl.masked(model, plan, removal=sl.CalibrationMean(data))
        assert torch.allclose(run(masked, VECTORS)[0], expected, rtol=0, atol=1e-14)


def test_means_of_maps_are_taken_over_all_places_and_of_flattened_ones_place_by_place() -> None:
    model = settle(
        nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 2))
    )
    graph = sl.trace(model, MAPS[:1])
    fill = sl.CalibrationMean([MAPS]).fill(model, Gates(graph), None)
    with torch.no_grad():
        hidden = model[:2](MAPS)
        assert torch.allclose(fill["2:conv2d#0", 0], hidden.mean((0, 2, 3))[:, None, None])
        assert torch.allclose(fill["5:linear#0", 0], model[:5](MAPS).mean(0))


@pytest.mark.parametrize("removal", [Zero(), sl.CalibrationMean([VECTORS])])
def test_removals_are_told_by_their_method(removal: Removal) -> None:
    assert isinstance(removal, Removal)
    assert not isinstance(object(), Removal)


PRECISIONS: dict[torch.dtype, float] = {torch.float32: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.01}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_masks_take_the_dtype_of_what_is_read(dtype: torch.dtype) -> None:
    model, inputs = NETS["residual"]()
    model, inputs = model.to(dtype), inputs.to(dtype)
    plan = half_plan(sl.trace(model, inputs))
    (output,) = run(sl.masked(model, plan), inputs)
    assert output.dtype == dtype
    assert gap([output], run(sl.prune(model, plan).model, inputs)) < PRECISIONS[dtype]


def test_autocast() -> None:
    model, inputs = NETS["residual"]()
    model, inputs = model.float(), inputs.float()
    plan = half_plan(sl.trace(model, inputs))
    with torch.autocast("cpu", torch.bfloat16):
        a, b = run(sl.masked(model, plan), inputs), run(sl.prune(model, plan).model, inputs)
    assert gap(a, b) < 0.1


def test_a_function_called_with_keywords_is_masked_at_the_right_one() -> None:
    read: list[Callable[..., Tensor]] = [
        lambda self, x: F.linear(F.relu(self.a(x)), self.b.weight, self.b.bias),
        lambda self, x: F.linear(bias=self.b.bias, weight=self.b.weight, input=F.relu(self.a(x))),
    ]
    outputs = []
    for f in read:
        model = settle(Apply(f, a=nn.Linear(6, 8), b=nn.Linear(8, 3)))
        outputs += run(sl.masked(model, half_plan(sl.trace(model, VECTORS[:1]))), VECTORS)
    assert torch.equal(*outputs)


# A reference input in the place of absent units


def test_a_reference_fills_in_what_it_is_read_as() -> None:
    model = settle(nn.Sequential(conv(3, 5), nn.ReLU(), nn.MaxPool2d(2), conv(5, 4), head(4)))
    plan = sl.plan(sl.trace(model, MAPS[:1]), {"0": [0, 3]})
    mask = plan.mask("0").double()[:, None, None]
    reference = example(1, 3, 6, 6, seed=9)
    expected = model[3:](model[:3](MAPS) * mask + model[:3](reference) * (1 - mask))
    found = sl.masked(model, plan, removal=sl.Reference(reference))(MAPS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (0.0, torch.zeros(1, 6)),
        (2, torch.full((1, 6), 2.0)),
        ("mean", VECTORS.mean(0, keepdim=True)),
        (VECTORS[3:4], VECTORS[3:4]),
        ((VECTORS[3:4],), VECTORS[3:4]),
    ],
    ids=lambda value: "tensor" if isinstance(value, Tensor) else str(type(value)),
)
def test_references_by_number_mean_or_example(given: Any, made: Tensor) -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    data = [VECTORS[:30], VECTORS[30:]] if not isinstance(given, tuple) else [((VECTORS,), None)]
    if isinstance(given, tuple):
        data = [{"input": VECTORS}]
        given = {"input": given[0]}
    found = sl.Reference(given).example(model, data)
    (leaf,) = found.values() if isinstance(found, dict) else (found,)
    torch.testing.assert_close(leaf, made.double(), rtol=0, atol=1e-15)
    assert leaf.dtype == torch.float64


def test_references_that_do_not_fit() -> None:
    model = settle(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    graph = sl.trace(model, VECTORS[:1])

    def score(reference: Any, data: Any = VECTORS) -> None:
        sl.attribute(model, graph, data, sl.Taylor(removal=sl.Reference(reference), target=sl.Logit(0)))

    with pytest.raises(DataError, match=r"of the data have shapes \[\(6,\)\], the reference \[\(7,\)\]"):
        score(torch.zeros(1, 7).double())
    with pytest.raises(DataError, match=r"is one example, with a first axis of 1.* \[2\]"):
        score(torch.zeros(2, 6).double())
    with pytest.raises(DataError, match="the reference"):
        score((VECTORS[:1], VECTORS[:1]))
    with pytest.raises(DataError, match="of a number or a mean needs data"):
        sl.masked(model, sl.plan(graph, {"0": [0]}), removal=sl.Reference())
    words, inputs = NETS["transformer"]()
    with pytest.raises(DataError, match="the inputs hold whole numbers, such as words"):
        sl.Reference().example(words, inputs)
    with pytest.raises(DataError, match='the only word is "mean"'):
        sl.Reference("zero")


def test_references_are_values() -> None:
    assert repr(sl.Reference()) == "Reference(0.0)"
    assert sl.Reference("mean") != sl.Reference(1)
    assert len({sl.Reference(VECTORS[:1]), sl.Reference(VECTORS[:1].clone())}) == 1
