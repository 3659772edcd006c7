"""Scores: shapes are checked, tensors live on the CPU, and they print."""

import dataclasses

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shapleaf.errors import CriterionError, PlanError
from shapleaf.records import Graph, Scores


def test_it_prints_extremes_medians_and_costs(scores: Scores) -> None:
    assert str(scores) == (
        "Scores by Shapley(), 1 example\n"
        "group  units    min  median    max  stderr  negative  evaluations\n"
        "─────  ─────  ─────  ──────  ─────  ──────  ────────  ───────────\n"
        "conv       4  -0.25     0.5  1,000     0.2         1           50\n"
        "fc         3      1       2      3       -         0            -\n"
        "seed=0"
    )


def test_scores_per_example_print_too(graph: Graph) -> None:
    scores = Scores(graph=graph, values={"fc": torch.tensor([[1.0, -2, 3], [4, 5, -6]])}, samples=2)
    assert str(scores).splitlines()[0] == "Scores by , 2 examples"
    assert str(scores).splitlines()[3].split() == ["fc", "3", "-6", "1", "5", "-", "2", "-"]


def test_nan_is_printed_loudly(graph: Graph) -> None:
    scores = Scores(graph=graph, values={"fc": torch.tensor([1.0, float("nan"), 3.0])})
    assert str(scores).splitlines()[3].split()[2:5] == ["nan", "nan", "nan"]


def test_tensors_are_detached(graph: Graph) -> None:
    values = torch.ones(3, requires_grad=True) * 2
    assert not Scores(graph=graph, values={"fc": values}).values["fc"].requires_grad


@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 2), (1, 1, 3), (0,)])
def test_the_last_dimension_is_the_units(graph: Graph, shape: tuple[int, ...]) -> None:
    with pytest.raises(CriterionError, match=r"scores of group fc must have shape \(3,\) or \(examples, 3\)"):
        Scores(graph=graph, values={"fc": torch.zeros(shape)})


def test_an_unknown_group_is_refused(graph: Graph) -> None:
    with pytest.raises(PlanError, match="no group is named 'x'"):
        Scores(graph=graph, values={"x": torch.zeros(3)})


@pytest.mark.parametrize(
    "stderr", [{"fc": torch.zeros(2)}, {"fc": torch.zeros(5, 3)}, {"conv": torch.zeros(4)}]
)
def test_standard_errors_have_the_shape_of_their_scores(
    graph: Graph, stderr: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(CriterionError, match="standard errors of group"):
        Scores(graph=graph, values={"fc": torch.zeros(3)}, stderr=stderr)


@pytest.mark.parametrize(
    "curve",
    [
        [],
        [0.0, 3.0],
        [[0.0, 0.0], [3.0, 1.0]],
        [[0.0, 0, 0], [2, 1, 0]],
        [[1.0, 0, 0], [3, 1, 0]],
        [[0.0, 0, 0], [2, 1, 0], [1, 1, 0], [3, 1, 0]],
    ],
)
def test_curves_lead_from_none_removed_to_all(graph: Graph, curve: list) -> None:
    values = {"fc": torch.zeros(3)}
    good = torch.tensor([[0.0, 0, 0], [1, -0.5, 0.1], [3, 1, 0.1]])
    assert torch.equal(Scores(graph=graph, values=values, curves={"fc": good}).curves["fc"], good)
    with pytest.raises(
        CriterionError, match="the curve of group fc must have rows .* from none removed to all 3"
    ):
        Scores(graph=graph, values=values, curves={"fc": torch.tensor(curve)})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.floats(width=32), min_size=3, max_size=3),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    examples=st.integers(0, 3),
    text=st.text(max_size=8),
)
def test_any_scores_round_trip(graph: Graph, tmp_path, values, dtype, examples, text) -> None:
    tensor = torch.tensor(values).to(dtype)
    tensor = tensor.expand(examples, 3) if examples else tensor
    scores = Scores(
        graph=graph,
        values={"fc": tensor},
        stderr={"fc": tensor},
        samples=examples,
        criterion=text,
        settings={text: text},
    )
    scores.save(tmp_path / "scores")
    loaded = Scores.load(tmp_path / "scores")
    assert loaded == scores
    assert loaded.values["fc"].dtype == dtype
    assert str(loaded) == str(scores)


def test_replace_checks_again(scores: Scores) -> None:
    with pytest.raises(CriterionError):
        dataclasses.replace(scores, values={"fc": torch.zeros(1)})
