"""Criteria without data."""

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.testing import untouched
from zoo import NETS, conv, head, settle


def score(
    model: nn.Module, graph: sl.Graph, criterion: sl.Criterion, **options: object
) -> dict[str, torch.Tensor]:
    with untouched(model):
        return sl.attribute(model, graph, None, criterion, **options).values


@pytest.fixture
def model() -> nn.Module:
    return settle(
        nn.Sequential(conv(2, 40), nn.BatchNorm2d(40), nn.ReLU(), conv(40, 50), nn.ReLU(), head(50))
    )


@pytest.fixture
def graph(model: nn.Module) -> sl.Graph:
    return sl.trace(model, torch.zeros(1, 2, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("p", "reference"),
    [
        (1.0, lambda row: sum(abs(w) for w in row)),
        (2.0, lambda row: sum(w * w for w in row) ** 0.5),
        (float("inf"), lambda row: max(abs(w) for w in row)),
        (0.0, lambda row: sum(w != 0 for w in row)),
    ],
)
def test_norms_of_rows_without_bias(model, graph, p: float, reference) -> None:
    values = score(model, graph, sl.WeightNorm(p))
    for name in ("0", "3"):
        rows = model.get_submodule(name).weight.flatten(1).tolist()
        assert values[name].tolist() == pytest.approx([reference(row) for row in rows], rel=1e-12)


def test_one_norm_is_the_default(model, graph) -> None:
    assert torch.equal(score(model, graph, sl.WeightNorm())["0"], score(model, graph, sl.WeightNorm(1))["0"])


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_of_the_zoo_can_be_scored_by_weights(name: str) -> None:
    model, inputs = NETS[name]()
    graph = sl.trace(model, inputs)
    values = score(model, graph, sl.WeightNorm())
    assert {group.name: (group.size,) for group in graph} == {g: tuple(v.shape) for g, v in values.items()}
    assert all(bool((v >= 0).all()) for v in values.values())


def test_a_tied_weight_counts_where_there_is_no_other() -> None:
    model, inputs = NETS["autoencoder"]()
    values = score(model, sl.trace(model, inputs), sl.WeightNorm())
    torch.testing.assert_close([*values.values()], [model.w.abs().sum(1)])


def test_random_scores_are_uniform_and_named_by_seed_and_group(model, graph) -> None:
    first, again, other = (score(model, graph, sl.Random(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first["0"], again["0"])
    assert not torch.equal(first["0"], other["0"])
    assert not torch.equal(first["0"][:40], first["3"][:40])
    everything = torch.cat([*first.values()])
    assert 0 <= float(everything.min()) < 0.1
    assert 0.9 < float(everything.max()) < 1
    assert abs(float(everything.mean()) - 0.5) < 4 / (12 * len(everything)) ** 0.5


def test_random_scores_do_not_depend_on_what_else_is_scored(model, graph) -> None:
    alone = score(model, graph, sl.Random(), groups=["3"])
    assert list(alone) == ["3"]
    assert torch.equal(alone["3"], score(model, graph, sl.Random())["3"])


@pytest.mark.parametrize("criterion", [sl.WeightNorm(), sl.Random()])
def test_no_data_no_examples_no_aggregation(model, graph, criterion) -> None:
    scores = sl.attribute(model, graph, None, criterion)
    assert scores.samples == 0
    assert scores.evaluations == {}
    assert scores.stderr == {}
    assert scores.settings["aggregate"] == scores.settings["loss"] == "none"
    assert scores.criterion == repr(criterion)


def test_weights_of_a_model_that_cannot_run_are_scored() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = sl.trace(model, torch.zeros(1, 3))
    model.forward = None  # type: ignore[assignment]
    assert sl.attribute(model, graph, None, sl.WeightNorm()).values["0"].shape == (8,)


def test_o6_the_one_norm_and_the_two_norm_disagree() -> None:
    """Of (3, 0) and (2, 2) L1 keeps the second, 4 > 3, and L2 the first, 3 > 2.83."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [2.0, 2.0]]).view(2, 2, 1, 1))
    graph = sl.trace(model, torch.zeros(1, 2, 3, 3))
    for p, norms, kept in ((1.0, [3.0, 4.0], (1,)), (2.0, [3.0, 8**0.5], (0,))):
        scores = sl.attribute(model, graph, None, sl.WeightNorm(p))
        assert scores.values["0"].tolist() == pytest.approx(norms)
        plan = sl.allocate(scores, sl.Units(keep=1), strategy=sl.Uniform(), multiple_of=1)
        assert plan.keep["0"] == kept
