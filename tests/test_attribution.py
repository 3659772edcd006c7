"""attribute: the right passes, invariant scores, clear errors, and a model left as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import shapleaf as sl
from shapleaf import _context
from shapleaf.criteria import Probe
from shapleaf.errors import CriterionError, DataError, PlanError
from shapleaf.testing import untouched
from zoo import NETS, Apply, conv, head, settle

X = torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
MODEL = settle(nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
GRAPH = sl.trace(MODEL, X)
CLOSE = {"rtol": 1e-10, "atol": 1e-12}

DETERMINISTIC = [
    sl.APoZ(),
    sl.Sensitivity(),
    sl.Taylor(),
    sl.Taylor(signed=True),
    sl.LeaveOneOut(),
    sl.LeaveOneOut(sl.CalibrationMean()),
    sl.Shapley(sl.Path(4, "line")),
    sl.Shapley(sl.Exact()),
]
SAMPLED = [
    sl.Shapley(sl.Permutation(2)),
    sl.Shapley(sl.Permutation(3, antithetic=False, shared=True)),
    sl.Shapley(sl.Path(2, "gaussian", 4)),
    sl.Shapley(sl.Path(2, "bernoulli", 3)),
]


def batches(*sizes: int, order: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    x, y = (X, Y) if order is None else (X[order], Y[order])
    return [*zip(x.split(sizes), y.split(sizes), strict=True)]


def attribute(criterion: sl.Criterion | None = None, data: Any = None, **options: Any) -> sl.Scores:
    options = {"aggregate": None, "groups": ["0"], **options}
    return sl.attribute(MODEL, GRAPH, batches(7) if data is None else data, criterion, **options)


def per_example(criterion: sl.Criterion, data: Any = None, **options: Any) -> Tensor:
    return attribute(criterion, data, **options).values["0"]


# What comes back


def test_shapley_values_by_mean_plus_two_deviations_are_the_default() -> None:
    default = sl.attribute(MODEL, GRAPH, batches(7))
    explicit = sl.attribute(MODEL, GRAPH, batches(7), sl.Shapley(), aggregate=sl.MeanPlusStd(2.0), seed=0)
    assert default == explicit
    assert list(default.values) == ["0", "3"]
    assert default.samples == 7
    assert default.evaluations == {"0": 62, "3": 62}


def test_it_says_what_it_did() -> None:
    scores = attribute(sl.Taylor(signed=True), aggregate=sl.Quantile(0.25), seed=3)
    assert scores.graph is GRAPH
    assert scores.criterion == "Taylor(signed=True, removal=Zero(), target=Loss())"
    assert scores.settings == {
        "aggregate": "Quantile(q=0.25)",
        "loss": "cross_entropy",
        "seed": "3",
        "shapleaf": sl.__version__,
        "torch": torch.__version__,
    }
    assert scores.evaluations == {}


def test_without_aggregation_examples_stay_in_order() -> None:
    values = per_example(sl.Taylor())
    assert values.shape == (7, 4)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values[2:3], per_example(sl.Taylor(), batches(2, 1, 4))[2:3], **CLOSE)


@pytest.mark.parametrize("aggregate", [sl.Mean(), sl.MeanPlusStd(1.5), sl.AbsMean(), sl.Quantile(0.3)])
def test_aggregations_are_those_of_the_scores_per_example(aggregate: Any) -> None:
    state = aggregate.start(4)
    state.update(per_example(sl.Taylor(signed=True)))
    value, error = state.result()
    scores = attribute(sl.Taylor(signed=True), batches(3, 3, 1), aggregate=aggregate)
    torch.testing.assert_close(scores.values["0"], value, **CLOSE)
    torch.testing.assert_close(scores.stderr.get("0"), error, **CLOSE)


def test_groups_are_chosen_by_patterns() -> None:
    assert list(attribute(sl.Taylor(), groups=["3", "0"]).values) == ["0", "3"]
    assert list(attribute(sl.Taylor(), groups=["*"]).values) == ["0", "3"]
    assert torch.equal(attribute(sl.Taylor(), groups=["*"]).values["0"], per_example(sl.Taylor()))
    with pytest.raises(PlanError, match="no group is named 'layer'"):
        attribute(sl.Taylor(), groups=["layer"])
    with pytest.raises(CriterionError, match=r"groups='0\*': expected a sequence, such as \('0\*',\)"):
        attribute(sl.Taylor(), groups="0*")  # which is not the group 0 and all others


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        [(X, Y)],
        DataLoader(TensorDataset(X, Y), batch_size=3),
        [{"input": X, "labels": Y}],
        ((x[None], y[None]) for x, y in zip(X, Y, strict=True)),
        sl.take((X, Y), 7, batch_size=4),
    ],
    ids=["tuple", "list", "loader", "mapping", "generator", "taken"],
)
def test_any_data_will_do(data: Any) -> None:
    torch.testing.assert_close(per_example(sl.Taylor(), data), per_example(sl.Taylor()), **CLOSE)


@pytest.mark.parametrize(
    "criterion",
    [sl.Taylor(), sl.LeaveOneOut(removal=sl.CalibrationMean()), sl.OptimalBrainSurgeon(felt=True)],
    ids=repr,
)
def test_one_pass_of_the_data_is_enough(criterion: sl.Criterion) -> None:
    once, again = (attribute(criterion, data, aggregate=sl.Mean()) for data in (iter([(X, Y)]), [(X, Y)]))
    assert once == again


# Standard errors


def test_sampling_errors_of_one_example_are_the_estimators() -> None:
    scores = attribute(sl.Shapley(sl.Permutation(8)), batches(3, 4))
    assert scores.stderr["0"].shape == (7, 4)
    assert "0" not in attribute(sl.Shapley(sl.Path(2, "line"))).stderr


def test_errors_over_examples_are_those_of_the_aggregation() -> None:
    scores = attribute(sl.Shapley(sl.Permutation(8)), aggregate=sl.Mean())
    values = per_example(sl.Shapley(sl.Permutation(8)))
    torch.testing.assert_close(scores.stderr["0"], values.std(0) / 7**0.5, **CLOSE)


def test_shared_draws_do_not_average_out() -> None:
    criterion = sl.Shapley(sl.Permutation(4, antithetic=False, shared=True))
    each = attribute(criterion)
    scores = attribute(criterion, batches(3, 4), aggregate=sl.Mean())
    expected = torch.hypot(each.values["0"].std(0) / 7**0.5, each.stderr["0"].mean(0))
    torch.testing.assert_close(scores.stderr["0"], expected, **CLOSE)


def test_stated_errors_cover_the_truth() -> None:
    """About two in three of independent estimates lie within one standard error of the exact mean."""
    exact = per_example(sl.Shapley(sl.Exact())).mean(0)
    inside = total = 0
    for seed in range(30):
        scores = attribute(sl.Shapley(sl.Permutation(16, antithetic=False)), seed=seed)
        error = scores.stderr["0"].square().sum(0).sqrt() / 7
        inside += int(((scores.values["0"].mean(0) - exact).abs() <= error).sum())
        total += 4
    assert 0.58 < inside / total < 0.78


# Invariants


@pytest.mark.parametrize("criterion", DETERMINISTIC + SAMPLED, ids=repr)
def test_scores_do_not_depend_on_how_the_data_were_cut(criterion: sl.Criterion) -> None:
    expected = per_example(criterion)
    for sizes in ((1,) * 7, (3, 3, 1), (6, 1)):
        torch.testing.assert_close(per_example(criterion, batches(*sizes)), expected, **CLOSE)


@pytest.mark.parametrize("criterion", DETERMINISTIC, ids=repr)
def test_scores_move_with_the_examples(criterion: sl.Criterion) -> None:
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    moved = per_example(criterion, batches(4, 3, order=order))
    torch.testing.assert_close(moved, per_example(criterion)[order], **CLOSE)
    aggregated = [
        attribute(criterion, batches(4, 3, order=o), aggregate=sl.Mean()).values["0"] for o in (order, None)
    ]
    torch.testing.assert_close(*aggregated, **CLOSE)


@pytest.mark.parametrize("criterion", SAMPLED, ids=repr)
def test_draws_belong_to_places_in_the_data(criterion: sl.Criterion) -> None:
    """The example at a place has the place's draws, whatever comes before; in another place it has others."""
    values = per_example(criterion)
    other = X.clone()
    other[:3] = 0
    torch.testing.assert_close(per_example(criterion, [(other, Y)])[3:], values[3:], **CLOSE)
    twice = per_example(criterion, [(X[:1].expand(7, -1, -1, -1), Y[:1].expand(7))])
    shared = getattr(criterion.estimator, "shared", False)  # type: ignore[attr-defined]
    assert torch.allclose(twice[0], twice[1], **CLOSE) == shared


@pytest.mark.parametrize("criterion", SAMPLED, ids=repr)
def test_the_seed_names_the_draws(criterion: sl.Criterion) -> None:
    assert torch.equal(per_example(criterion, seed=5), per_example(criterion, seed=5))
    assert not torch.allclose(per_example(criterion, seed=5), per_example(criterion, seed=6))


def test_the_users_own_seed_changes_nothing() -> None:
    torch.manual_seed(123)
    first = per_example(SAMPLED[0])
    torch.manual_seed(321)
    assert torch.equal(per_example(SAMPLED[0]), first)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_cut_of_any_order(data: st.DataObject) -> None:
    order = torch.tensor(data.draw(st.permutations(range(7))))
    sizes = []
    while sum(sizes) < 7:
        sizes.append(data.draw(st.integers(1, 7 - sum(sizes))))
    moved = per_example(sl.Taylor(signed=True), batches(*sizes, order=order))
    torch.testing.assert_close(moved, per_example(sl.Taylor(signed=True))[order], **CLOSE)


def test_train_mode_dropout_and_batch_statistics_play_no_part() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), head(4)))
    graph = sl.trace(model, X)
    results = [
        sl.attribute(model.train(mode), graph, batches(7), sl.Taylor()).values["0"] for mode in (True, False)
    ]
    assert torch.equal(*results)


def test_half_precision_models_are_scored() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    graph = sl.trace(model, X)
    expected = sl.attribute(model, graph, batches(7), sl.Shapley(), aggregate=sl.Mean()).values["0"]
    half = model.bfloat16()
    scores = sl.attribute(
        half, sl.trace(half, X.bfloat16()), [(X.bfloat16(), Y)], sl.Shapley(), aggregate=sl.Mean()
    )
    assert scores.values["0"].dtype == torch.float64
    assert float((scores.values["0"] - expected).norm() / expected.norm()) < 0.05


# Any network


def total(output: Any, target: Any) -> Tensor:
    """A loss for any kind of output: the mean square of every tensor."""
    parts = [t.flatten(1).square().mean(1) for t in _context.tensors(output)]
    return torch.stack(parts).sum(0)


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_of_the_zoo(name: str) -> None:
    """Leaving one out is the rise of the masked network's loss; gradients see the same units."""
    model, inputs = NETS[name]()
    if isinstance(inputs, dict):
        inputs = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    graph = sl.trace(model, inputs)
    examples = len(_context.tensors(inputs)[0])
    data = [(inputs, torch.zeros(examples))]
    found = {}
    for criterion in (sl.LeaveOneOut(), sl.Taylor(signed=True), sl.APoZ(), sl.Sensitivity()):
        with untouched(model):
            scores = sl.attribute(model, graph, data, criterion, loss=total, aggregate=None)
        found[type(criterion).__name__] = scores.values
    with torch.no_grad(), _context.inference(model):
        whole = total(_context.forward(model, inputs), None)
        alone = [group for group in graph if not any(group.name in tie for tie in graph.ties)]
        for group in alone:  # no plan takes one unit from a tied group
            for unit in {0, group.size - 1}:
                plan = sl.plan(graph, {group.name: [u for u in range(group.size) if u != unit]})
                rise = total(_context.forward(sl.masked(model, plan), inputs), None) - whole
                torch.testing.assert_close(found["LeaveOneOut"][group.name][:, unit], rise, **CLOSE)
    for group in graph:
        silent = found["Sensitivity"][group.name] == 0
        assert bool((found["Taylor"][group.name][silent] == 0).all())
        assert bool((found["APoZ"][group.name] <= 1).all())


# A user's own


@dataclasses.dataclass(frozen=True)
class Peak:
    needs: ClassVar[sl.Needs] = sl.Needs.ACTIVATION

    def score(self, probe: Probe) -> Tensor:
        return probe.activation.abs().amax(-1)


def test_ten_lines_make_a_criterion() -> None:
    assert torch.equal(per_example(Peak()), MODEL[:3](X).detach().flatten(2).amax(2))
    assert torch.equal(per_example(Peak(), (X,)), per_example(Peak()))  # no labels asked, none needed


@dataclasses.dataclass(frozen=True)
class Returns:
    """Whatever it is told to."""

    value: Any
    needs: sl.Needs = sl.Needs.ACTIVATION  # type: ignore[misc]

    def score(self, probe: Probe) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4), r"group 0: the criterion returned shape \(4,\), expected scores of shape \(7, 4\)"),
        (torch.zeros(7, 5), r"returned shape \(7, 5\), expected"),
        (torch.full((7, 4), torch.nan), "group 0: the criterion returned scores that are not finite"),
        (torch.full((7, 4), torch.inf), "not finite"),
        (None, "returned a NoneType, expected"),
        ([[0.0] * 4] * 7, "returned a list, expected"),
    ],
)
@pytest.mark.parametrize("aggregate", [None, sl.Mean()])
def test_unusable_scores_are_refused(value: Tensor, message: str, aggregate: Any) -> None:
    with untouched(MODEL), pytest.raises(CriterionError, match=message):
        attribute(Returns(value), aggregate=aggregate)


def test_scores_without_data_have_one_per_unit() -> None:
    with pytest.raises(CriterionError, match=r"returned shape \(7, 4\), expected scores of shape \(4,\)"):
        attribute(Returns(torch.zeros(7, 4), sl.Needs.NOTHING))


# Data that do not fit


def exhausted() -> Iterator[tuple[Tensor, Tensor]]:
    generator = ((x, y) for x, y in batches(3, 4))
    for _ in generator:
        pass
    return generator


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.Shapley()], ids=repr)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data are empty"),
        (exhausted(), "the data are exhausted: a generator can be gone through only once"),
        ([(X, None)], "has no target"),
        ([X], "has no target"),
        ([(X, Y + 1)], r"labels run from 1 to 3, but the model has 3 classes \(0 to 2\)"),
        ([(X, Y - 1)], "labels run from -1 to 1"),
        ([(X, Y[:3])], "differs in its number of examples"),
        ([(X / 0, Y)], "is not finite"),
        ([(X[:, :1], Y)], r"the model failed on inputs of \(7, 1, 6, 6\)"),
        ([(X.float(), Y)], r"the model failed on inputs of \(7, 2, 6, 6\) torch\.float32"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_data_that_do_not_fit_are_named(criterion: sl.Criterion, data: Any, message: str) -> None:
    with untouched(MODEL), pytest.raises(DataError, match=message):
        attribute(criterion, data)


def test_data_are_needed_unless_nothing_is() -> None:
    with pytest.raises(DataError, match="data must be an iterable of batches"):
        sl.attribute(MODEL, GRAPH, None)


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.Shapley(), sl.LeaveOneOut()], ids=repr)
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (F.cross_entropy, r"the loss must be per example: expected shape \(7,\), received \(\)"),
        (lambda o, t: F.mse_loss(o, o, reduction="none"), r"received \(7, 3\)"),
        (lambda o, t: o.sum(1) * torch.nan, "the loss of example 0 of the batch is nan"),
        (lambda o, t: torch.where(t == 2, torch.inf, o.sum(1)), "the loss of example 2 of the batch is inf"),
        (lambda o, t: o @ t, "the loss failed on outputs of shape"),
        (
            sl.Logit(1),
            r"loss=Logit\(of=1\) is a target; pass Taylor\(target=Logit\(of=1\)\), say",
        ),
    ],
)
def test_losses_that_are_unusable_are_named(criterion: sl.Criterion, loss: Any, message: str) -> None:
    with untouched(MODEL), pytest.raises(CriterionError, match=message):
        attribute(criterion, loss=loss)


# Models that draw


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.LRP(), sl.APoZ(), sl.Conductance(2)], ids=repr)
def test_dropout_that_is_always_on_is_noticed(criterion: sl.Criterion) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(F.dropout(F.relu(self.a(x)), training=self.always))

    model = settle(Apply(run, a=conv(2, 4), head=head(4)))
    model.always = False
    graph = sl.trace(model, X)
    sl.attribute(model, graph, batches(7), criterion)
    model.always = True
    with untouched(model), pytest.warns(UserWarning, match="draws random numbers in eval mode") as caught:
        sl.attribute(model, graph, batches(3, 4), criterion)
    assert len(caught) == 1
    assert caught[0].filename == __file__


# Where gradients are off


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "criterion",
    [
        sl.Taylor(),
        sl.LRP(),
        sl.IntegratedGradients(),
        sl.Conductance(2),
        sl.DeepLIFT(),
        sl.DeepLIFT(sl.Reference()),
        sl.Shapley(),
        sl.OptimalBrainSurgeon(felt=True),
    ],
    ids=repr,
)
def test_gradients_are_taken_where_the_user_has_none(criterion: sl.Criterion, off: Any) -> None:
    usual = attribute(criterion)
    with off():
        assert attribute(criterion) == usual


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.LRP(), sl.DeepLIFT(), sl.Shapley()], ids=repr)
def test_a_checkpoint_is_named(criterion: sl.Criterion) -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))

    body = nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 4), nn.ReLU())
    model = settle(Apply(run, body=body, head=head(4)))
    with untouched(model), pytest.raises(CriterionError, match="Switch checkpointing off while it is scored"):
        sl.attribute(model, sl.trace(model, X), batches(7), criterion)


@pytest.mark.parametrize("wrong", ["taylor", sl.LRP, [sl.Taylor()]], ids=repr)
def test_what_is_no_criterion_is_refused(wrong: Any) -> None:
    with pytest.raises(CriterionError, match=r"criterion=.*: expected a criterion, such as Taylor\(\)"):
        attribute(wrong)


# Where no gradient goes


class Stopped(nn.Module):
    """A backbone that gradients do not go through, and a head; another head that nothing comes of."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(6, 5), nn.Linear(5, 4)
        self.out, self.d, self.unused = nn.Linear(4, 3), nn.Linear(5, 4), nn.Linear(4, 2)
        self.how = how

    def backbone(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a(x))))

    def forward(self, x: Tensor) -> Any:
        if self.how == "reentrant":
            h = checkpoint(self.backbone, x, use_reentrant=True)
        else:
            with torch.set_grad_enabled(self.how != "no_grad"):
                h = self.backbone(x)
        h = h.detach() if self.how == "detach" else h
        return self.out(F.relu(self.c(h))), self.unused(F.relu(self.d(h)))


GRADIENTS = [sl.Taylor(), sl.Sensitivity(), sl.DeepLIFT(), sl.DeepLIFT(sl.Reference()), sl.Conductance(2)]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("criterion", GRADIENTS, ids=repr)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "no_grad",
            "group a: gradients are off where its units are read, in b:linear#0: the model runs under",
        ),
        ("reentrant", "group a: gradients are off where its units are read"),
        ("detach", "group a: the loss depends on its units, but no gradient leads to them"),
    ],
)
def test_units_that_no_gradient_leads_to_are_no_zeros(
    criterion: sl.Criterion, how: str, message: str
) -> None:
    model = settle(Stopped(how))
    graph, data = sl.trace(model, X[:1, 0, 0, :3]), (X[:, 0, 0, :3], Y)
    with untouched(model), pytest.raises(CriterionError, match=message):
        sl.attribute(model, graph, data, criterion)
    left = sl.attribute(model, graph, data, criterion, groups=["c", "d"]).values
    assert left["c"].any()
    assert not left["d"].any()  # which the loss does not depend on


# Examples that influence each other


def _tokens_first(self: Any, x: Tensor) -> Tensor:
    rows = F.relu(
        self.a(x.flatten(2).permute(2, 0, 1).reshape(-1, 2))
    )  # all examples of a token, then the next
    return self.b(rows).unflatten(0, (-1, len(x))).mean(0)


def _batch_statistics(self: Any, x: Tensor) -> Tensor:
    return self.b(F.relu(self.norm(self.c(F.relu(self.a(x.mean(3).mean(2)))))))


MIXED = {
    "tokens first": settle(Apply(_tokens_first, a=nn.Linear(2, 4), b=nn.Linear(4, 3))),
    "batch statistics": settle(
        Apply(
            _batch_statistics,
            a=nn.Linear(2, 4),
            c=nn.Linear(4, 5),
            norm=nn.BatchNorm1d(5, track_running_stats=False),
            b=nn.Linear(5, 3),
        )
    ),
}


@pytest.mark.parametrize("criterion", [*DETERMINISTIC, *SAMPLED], ids=repr)
@pytest.mark.parametrize("name", MIXED)
def test_mixed_examples_are_refused(name: str, criterion: sl.Criterion) -> None:
    if (name, criterion) == ("batch statistics", sl.APoZ()):
        return  # they come after what is read
    model = MIXED[name]
    graph = sl.trace(model, X)
    with untouched(model), pytest.raises(CriterionError, match="nothing can be measured per example"):
        sl.attribute(model, graph, batches(7), criterion, groups=["a"])


@pytest.mark.parametrize("criterion", [sl.Taylor(), sl.APoZ(), sl.Shapley()], ids=repr)
def test_one_example_at_a_time_cannot_mix(criterion: sl.Criterion) -> None:
    model = MIXED["tokens first"]
    scores = sl.attribute(model, sl.trace(model, X), batches(*[1] * 7), criterion, aggregate=None)

    def run(self: Any, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x.flatten(2).transpose(1, 2)))).mean(1)

    usual = Apply(run, a=model.a, b=model.b)
    expected = sl.attribute(usual, sl.trace(usual, X), batches(7), criterion, aggregate=None)
    torch.testing.assert_close(scores.values["a"], expected.values["a"], **CLOSE)


@pytest.mark.parametrize("criterion", [sl.LeaveOneOut(), sl.Taylor()], ids=repr)
def test_a_loss_that_mixes_examples_is_refused(criterion: sl.Criterion) -> None:
    def centred(output: Tensor, target: Tensor) -> Tensor:
        losses = F.cross_entropy(output, target, reduction="none")
        return losses - losses.mean()

    with pytest.raises(CriterionError, match="the loss of an example changes with .* others?"):
        attribute(criterion, loss=centred)


# The model is left as it was


class Stop(Exception):
    """Comes in the middle of something."""


@pytest.fixture
def lived_in() -> nn.Module:
    """A model with gradients, a frozen layer, its own hook, and one module in another mode."""
    model = settle(
        nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5))
    ).train()
    model[1].eval()
    model[3].requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[0].register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("criterion", [sl.WeightNorm(), sl.Random(), *DETERMINISTIC, *SAMPLED], ids=repr)
def test_the_model_is_left_as_it_was(lived_in: nn.Module, criterion: sl.Criterion) -> None:
    graph = sl.trace(lived_in, X)
    with untouched(lived_in):
        sl.attribute(lived_in, graph, batches(4, 3), criterion)


@pytest.mark.parametrize(
    "criterion", [sl.Taylor(), sl.Sensitivity(), sl.LeaveOneOut(), sl.Shapley()], ids=repr
)
@pytest.mark.parametrize("last", [0, 1, 2, 5])
def test_also_when_the_loss_raises(lived_in: nn.Module, criterion: sl.Criterion, last: int) -> None:
    graph, calls = sl.trace(lived_in, X), []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > last:
            raise Stop
        return F.cross_entropy(output, target, reduction="none")

    with untouched(lived_in), pytest.raises(Stop):
        sl.attribute(lived_in, graph, batches(1, 1, 1, 1, 1, 1, 1), criterion, loss=loss)


@pytest.mark.parametrize("needs", [*sl.Needs, sl.Needs.NOTHING])
def test_also_when_the_criterion_raises(lived_in: nn.Module, needs: sl.Needs) -> None:
    class Raises(Returns):
        def score(self, probe: Probe) -> Any:
            raise Stop

    graph = sl.trace(lived_in, X)
    with untouched(lived_in), pytest.raises(Stop):
        sl.attribute(lived_in, graph, batches(4, 3), Raises(None, needs))


def test_also_when_the_data_raise(lived_in: nn.Module) -> None:
    def data() -> Iterator[Any]:
        yield X, Y
        raise Stop

    graph = sl.trace(lived_in, X)
    for criterion in (sl.Taylor(), sl.Shapley()):
        with untouched(lived_in), pytest.raises(Stop):
            sl.attribute(lived_in, graph, data(), criterion)


def test_no_global_hook_or_mode_is_left(lived_in: nn.Module) -> None:
    graph = sl.trace(lived_in, X)
    for raises in (False, True):
        try:
            sl.attribute(
                lived_in, graph, batches(7), Returns(None if raises else torch.zeros(7, 4)), groups=["0"]
            )
        except CriterionError:
            assert raises
        assert not torch.nn.modules.module._global_forward_hooks
        assert not torch.nn.modules.module._global_forward_pre_hooks
        assert torch._C._len_torch_function_stack() == 0


def test_the_data_are_left_as_they_were() -> None:
    x, y = X.clone(), Y.clone()
    for criterion in (sl.Taylor(), sl.Shapley()):
        sl.attribute(MODEL, GRAPH, [(x, y)], criterion)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert x.grad is None
    assert not x.requires_grad


def test_an_interruption_returns_the_groups_known_by_then() -> None:
    class Interrupted(sl.Permutation):
        def estimate(self, game: Any, seed: int = 0) -> sl.Estimate:
            return dataclasses.replace(sl.Permutation(2).estimate(game, seed), stopped="interrupted")

    scores = sl.attribute(MODEL, GRAPH, batches(7), sl.Shapley(Interrupted(2)))
    assert (list(scores.values), scores.stopped) == (["0"], {"0": "interrupted"})
    assert "interrupted" in str(scores)
    plan = sl.allocate(scores, sl.Units(remove=1), multiple_of=1, strategy=sl.Uniform())
    assert plan.pruned == ("0",)


def test_what_stopped_the_sampling_is_kept(tmp_path: Path) -> None:
    adaptive = sl.Shapley(sl.Adaptive(sl.Permutation(), confidence=1, evaluations=100))
    scores = sl.attribute(MODEL, GRAPH, batches(7), adaptive)
    assert scores.stopped == {"0": "evaluations", "3": "evaluations"}
    scores.save(tmp_path / "scores")
    assert sl.Scores.load(tmp_path / "scores") == scores
    assert "stopped" not in str(attribute(sl.Taylor()))


def test_errors_that_all_examples_share_add_to_the_standard_error() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sure:
        needs: ClassVar[sl.Needs] = sl.Needs.GAME
        common: float

        def score(self, probe: Probe) -> sl.Estimate:
            values = torch.arange(7.0)[:, None].expand(-1, probe.group.size)
            common = torch.full((probe.group.size,), self.common)
            return sl.Estimate(
                values=values, stderr=None, evaluations=1, shared=False, gap=None, common=common
            )

    own, both = (attribute(Sure(common), aggregate=sl.Mean()).stderr["0"] for common in (0.0, 3.0))
    torch.testing.assert_close(both, torch.hypot(own, torch.tensor(3.0, dtype=torch.float64)))
