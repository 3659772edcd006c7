"""The maximum of two numbers as a network: Table 1 of Ancona et al. (2020), for every criterion.

    python papers/shapley-pruning/toy.py

Everything about this network is known: scores stand beside closed forms. Written to ``TOY.md``, in seconds.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch
from results import made_by, table, versions
from torch import Tensor

import shapleaf as sl
from shapleaf._store import atomic
from shapleaf.criteria import Criterion

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "tests"))  # the network is also what the library is tested on
from maxnet import POINTS, MaxNet, per_example, quadrature  # noqa: E402

Numbers = tuple[Fraction | float, ...]

LOCAL: dict[str, Criterion] = {
    "weight norm": sl.WeightNorm(),
    "1 - APoZ": sl.APoZ(),
    "sensitivity": sl.Sensitivity(),
    "Taylor": sl.Taylor(),
    "Taylor signed": sl.Taylor(signed=True),
    "leave one out": sl.LeaveOneOut(),
    "random": sl.Random(),
}
SHAPLEY: dict[str, Criterion] = {
    "Shapley, exact": sl.Shapley(sl.Exact()),
    "Shapley, default path": sl.Shapley(),
    "Shapley, line path": sl.Shapley(sl.Path(1, "line")),
    "Shapley, paper's sampler": sl.Shapley(sl.Permutation(5, antithetic=False, shared=True)),
    "Shapley, orders per example": sl.Shapley(sl.Permutation(4)),
    "Shapley, least squares": sl.Shapley(sl.Regression(5)),
    "Shapley, moments": sl.Shapley(sl.OwenMoments()),
    "Shapley, DASP": sl.Shapley(sl.DASP()),
    "Shapley, corrected": sl.Shapley(sl.Corrected()),
    "Shapley, adaptive": sl.Shapley(sl.Adaptive()),
}
ROUNDING = 1e-12
SPREAD = "Shapley, exact, mean + 2 std"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A version of the network, the inputs, and what is known of the scores of its units A, B, C and D.

    Attributes:
        title: of its table.
        net: the network.
        points: inputs; None for all of the square [0, 10] x [0, 10].
        expected: closed forms, by criterion; "Shapley" is for all of its estimators.
        theirs: what the authors' repository has, by criterion.
    """

    title: str
    net: MaxNet
    points: Tensor | None
    expected: dict[str, Numbers]
    theirs: dict[str, str] = field(default_factory=dict)


ONES = {"1 - APoZ": (Fraction(1, 2), Fraction(1, 2), 1, 1)}
CASES = (
    Case(
        "The paper's network, which computes the maximum, on the square",
        MaxNet(),
        None,
        {
            **ONES,
            "weight norm": (Fraction(1, 2), 2, 2, 2),
            **dict.fromkeys(("sensitivity", "Taylor", "Taylor signed"), (0, 0, 0, 0)),
            "leave one out": (Fraction(25, 12), Fraction(25, 12), Fraction(175, 6), 0),
            "Shapley": (Fraction(25, 4), Fraction(25, 4), Fraction(75, 2), 0),
        },
    ),
    Case(
        "The same with a weight of -0.1 from D to the output",
        MaxNet(d=-0.1),
        None,
        {
            **ONES,
            "weight norm": (Fraction(1, 2), 2, 2, 2),
            "sensitivity": (4, 1, 1, Fraction(1, 5)),
            "Taylor": (Fraction(5, 3), Fraction(5, 3), Fraction(35, 3), Fraction(7, 3)),
            "Taylor signed": (Fraction(5, 3), Fraction(5, 3), Fraction(35, 3), Fraction(-7, 3)),
            "leave one out": (Fraction(15, 4), Fraction(15, 4), Fraction(245, 6), Fraction(-7, 6)),
            "Shapley": (Fraction(85, 12), Fraction(85, 12), Fraction(130, 3), Fraction(-26, 3)),
        },
        {
            "weight norm": "0.5, 2, 2, 2",
            "1 - APoZ": "0.506, 0.494, 1, 1",
            "sensitivity": "4.005, 1.001, 1.001, 0.200",
            "Taylor signed": "1.70, 1.62, 11.72, -2.34",
        },
    ),
    Case(
        "TorchPruner's first test: weights of A and B halved and doubled, four points",
        MaxNet(first=0.5),
        POINTS,
        {
            **ONES,
            "weight norm": (1, 2, 2, 2),
            **dict.fromkeys(("sensitivity", "Taylor", "Taylor signed"), (0, 0, 0, 0)),
            "leave one out": (Fraction(1, 8), Fraction(1, 8), Fraction(5, 4), 0),
            "Shapley": (Fraction(3, 8), Fraction(3, 8), Fraction(7, 4), 0),
        },
        {
            "weight norm": "1, 2, 2, 2",
            "1 - APoZ": "0.5, 0.5, 1, 1",
            "sensitivity": "0, 0, 0, 0",
            "Taylor": "0, 0, 0, 0",
            "Shapley, paper's sampler": "0.37, 0.37, 1.7, 0 (1,000 orders, one decimal)",
        },
    ),
    Case(
        "TorchPruner's second test: the same with a weight of -0.1 from D to the output",
        MaxNet(first=0.5, d=-0.1),
        POINTS,
        {
            **ONES,
            "weight norm": (1, 2, 2, 2),
            "sensitivity": (Fraction(2, 5), Fraction(1, 5), Fraction(1, 5), Fraction(1, 25)),
            "Taylor": (Fraction(1, 10), Fraction(1, 10), Fraction(1, 2), Fraction(1, 10)),
            "Taylor signed": (Fraction(1, 10), Fraction(1, 10), Fraction(1, 2), Fraction(-1, 10)),
            "leave one out": (Fraction(9, 40), Fraction(9, 40), Fraction(7, 4), Fraction(-1, 20)),
            "Shapley": (Fraction(17, 40), Fraction(17, 40), 2, Fraction(-2, 5)),
        },
        {
            "sensitivity": "0.2, 0.1, 0.2, 0.04 (before the ReLU)",
            "Taylor": "0.1, 0.1, 0.5, 0.1",
            "Taylor signed": "0.1, 0.1, 0.5, -0.1",
        },
    ),
)
LEAD = (
    "Units A and B carry what x2 exceeds x1 by, and the other way round; C carries the mean of both; D is "
    "read with weight zero, or -0.1. Scores are expectations over x1 and x2, uniform on [0, 10], by a "
    "quadrature that is exact for them, or means over four points; the loss is the squared error. Off by: "
    "the largest difference between a unit's score and the closed form; above rounding it is what sampling "
    "adds. Theirs: the stored notebook of the authors' repository (10,000 random points; its product of "
    "gradient and activation with the sign turned) and its tests."
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of TOY.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = "`python papers/shapley-pruning/toy.py`"
    parts = ["# The maximum of two numbers", command, f"{LEAD} {made_by({'versions': versions()})}."]
    for case in CASES:
        header = ["criterion", "A", "B", "C", "D", "closed form", "off by", "theirs"]
        parts += [f"## {case.title}", table(header, rows(case))]
    text = "\n\n".join(parts)
    print(text)
    with atomic(options.out / "TOY.md") as new:
        new.write_text(f"{text}\n")


def rows(case: Case) -> list[list[str]]:
    """A row for each criterion."""
    found = []
    for name, criterion in {**LOCAL, **SHAPLEY}.items():
        expected = case.expected.get("Shapley" if name in SHAPLEY else name)
        found.append(row(case, name, scores(case, criterion)[0], expected))
    mean, square = scores(case, SHAPLEY["Shapley, exact"])
    return [*found, row(case, SPREAD, mean + 2 * (square - mean**2).clamp(min=0).sqrt(), None)]


def row(case: Case, name: str, values: Tensor, expected: Numbers | None) -> list[str]:
    numbers = [f"{round(value, 6) + 0.0:.5g}" for value in values.tolist()]
    closed, error = "-", "-"
    if expected is not None:
        closed = ", ".join(map(str, expected))
        largest = max(abs(a - float(b)) for a, b in zip(values.tolist(), expected, strict=True))
        error = f"{largest:.2g}" if largest > ROUNDING else "rounding"
    return [name, *numbers, closed, error, case.theirs.get(name, "-")]


def scores(case: Case, criterion: Criterion) -> tuple[Tensor, Tensor]:
    """The means of the four scores and of their squares."""
    points, weights = quadrature() if case.points is None else (case.points, torch.full((4,), 0.25).double())
    values = per_example(case.net, criterion, points)
    if values.ndim == 1:
        return values, values**2
    return weights @ values, weights @ values**2


if __name__ == "__main__":
    main()
