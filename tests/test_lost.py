"""What pruning loses, from end to end on a small trained network: the orders that the paper found.

The other oracles of "Lost in Pruning" are beside the modules, named O1 to O25, and its reference code's
defects H1.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf import Candidate, GaussianNoise
from shapleaf.integrations.datasets import load_data
from shapleaf.weights import Choice, WeightProbe, top

KEEPS = (0.8, 0.7, 0.6, 0.5, 0.4, 0.2)
TEST = load_data("digits", split="test").sample(400, 0)


class Chance:
    """Weights that stay by chance."""

    def choose(self, probe: WeightProbe) -> Choice:
        draw = torch.Generator().manual_seed(probe.seed)
        return top(probe, {name: torch.rand(w.shape, generator=draw) for name, w in probe.weights.items()})


METHODS = {"WT": sl.Magnitude(), "SiPP": sl.SiPP(), "random": Chance()}


def trained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Linear(256, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)]
    model = nn.Sequential(nn.Flatten(), *layers)
    data = load_data("digits", split="train").tensors()
    sl.train(model, data, sl.Recipe(epochs=6, batch=50, lr=0.05), seed=seed)
    return model


@pytest.fixture(scope="module")
def subjects() -> list[Candidate]:
    """A network pruned by every method to the same sizes, and one trained alike as the yardstick."""
    dense, sample = trained(0), load_data("digits", split="train").sample(50, 1).batches()
    found = [
        Candidate(name="dense", model=dense, role="reference"),
        Candidate(name="separate", model=trained(1), role="separate", net="1"),
    ]
    for method, criterion in METHODS.items():
        for keep in KEEPS:
            masks = sl.sparsify(dense, sl.Nonzeros(keep=keep), criterion, sample, sweep=False)
            model, share = sl.sparsified(dense, masks), 1 - masks.keep
            found.append(Candidate(name=f"{method} {keep}", model=model, method=method, removed=share))
    return found


@pytest.fixture(scope="module")
def outcomes(subjects: list[Candidate]) -> sl.Outcomes:
    return sl.assess(subjects, sl.distributions(TEST, names=(), noise=[GaussianNoise(0.5)]))


def test_what_is_scored_beats_chance_at_every_size(outcomes: sl.Outcomes) -> None:
    errors = dict(zip((one.name for one in outcomes.subjects), outcomes["clean"].errors, strict=True))
    for keep in KEEPS:
        for method in ("WT", "SiPP"):
            assert errors[f"{method} {keep}"] < errors[f"random {keep}"] - 0.05
    assert errors["dense"] < 0.15


def test_less_may_go_under_strong_noise(outcomes: sl.Outcomes) -> None:
    found = sl.prune_potential(outcomes, delta=0.02, resamples=50)
    clean, noisy = found.over("WT", "nominal"), found.over("WT", "shifted")
    assert 0 < noisy.mean <= clean.mean
    assert found.over("random", "nominal").mean == 0


def test_a_lightly_pruned_network_is_more_alike_than_a_separate_one(subjects: list[Candidate]) -> None:
    chosen = [one for one in subjects if one.name in ("dense", "separate", "WT 0.8")]
    found = sl.noise_similarity(chosen, TEST.tensors()[0][:100], epsilons=(0, 0.7), draws=3)
    _, separate, pruned = (found.distance[k].mean(-1) for k in range(3))
    assert bool((2 * pruned < separate).all())
    _, separate, pruned = (found.matching[k].mean(-1) for k in range(3))
    assert bool((pruned > separate).all())


def test_partial_outcomes_are_enough_for_a_verdict(outcomes: sl.Outcomes) -> None:
    """What a failure on the way left: the clean data were measured, the shifts were not."""
    left = sl.Outcomes(subjects=outcomes.subjects, observed=outcomes.observed[:1])
    record = sl.robustness(left, resamples=20)
    assert record.excess is None
    assert "No shifts were measured" in record.verdict.notes[0]
    for observed, message in ((outcomes.observed[1:], "none is nominal"), ((), "hold no distribution")):
        with pytest.raises(sl.DataError, match=message):
            sl.robustness(sl.Outcomes(subjects=outcomes.subjects, observed=observed))
