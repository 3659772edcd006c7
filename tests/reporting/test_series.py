"""What is drawn: lines, bars and dots in percent, from small records."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import robust
from shapleaf.errors import DataError
from shapleaf.records import (
    Excess,
    ExcessError,
    Limit,
    Measured,
    Pooled,
    Potential,
    PruningCurve,
    PruningCurves,
    Robustness,
    Slope,
    Subject,
    Verdict,
)
from shapleaf.reporting import series
from shapleaf.reporting.series import Bar, Dot

SUBJECTS = (
    Subject(name="dense", role="reference"),
    Subject(name="b", method="WT", removed=0.5),
    Subject(name="a", method="WT", removed=0.25),
    Subject(name="c", method="FT", removed=0.5),
    Subject(name="other", role="separate"),
)


def measured(subject: str, value: float, metric: str = "accuracy", other: str = "") -> Measured:
    return Measured(
        subject=subject,
        distribution="clean",
        metric=metric,
        value=value,
        low=value - 1,
        high=value + 2,
        other=other,
    )


def record(*curves: Measured, potential: Potential | None = None) -> Robustness:
    return Robustness(
        subjects=SUBJECTS,
        curves=curves,
        potential=potential or Potential(limits=()),
        verdict=Verdict(advice=(), delta=0.005),
    )


def test_a_curve_goes_from_left_to_right_and_the_reference_comes_first() -> None:
    found = record(*(measured(name, 80.0 + i) for i, name in enumerate(("b", "a", "c", "dense"))))
    lines = series.curves(found, "accuracy", "clean")
    assert [(line.label, line.method, line.role) for line in lines] == [
        ("dense", 0, "reference"), ("WT", 0, "pruned"), ("FT", 1, "pruned")]  # fmt: skip
    assert lines[1].dots == (Dot(25, 81, 80, 83), Dot(50, 80, 79, 82))
    assert lines[0].dots == (Dot(0, 83, 82, 85),)


def test_agreement_is_with_the_own_reference_and_its_yardstick_between_networks() -> None:
    pairs = [("b", "dense", 90.0), ("b", "other", 70.0), ("dense", "other", 75.0)]
    found = record(*(measured(one, value, "agreement", other) for one, other, value in pairs))
    lines = series.curves(found, "agreement", "clean")
    assert [(line.role, line.dots[0].y) for line in lines] == [("separate", 75.0), ("pruned", 90.0)]


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(DataError, match="no 'accuracy' on 'fog'"):
        series.curves(record(measured("a", 1.0)), "accuracy", "fog")


def test_the_quality_of_segmentations_is_their_mean_iou() -> None:
    assert series.quality(record(measured("a", 1.0))) == "accuracy"
    assert series.quality(record(measured("a", 1.0, "mean IoU"))) == "mean IoU"
    assert series.label_of("mean IoU") == "mean IoU (%)"


def test_potentials_are_in_percent_at_the_first_tolerance_nominal_data_first() -> None:
    def pooled(name: str, mean: float, delta: float = 0.005, scope: str = "distribution") -> Pooled:
        ends = {"mean": mean, "mean_low": mean - 0.1, "mean_high": mean + 0.05}
        worst = {"worst": mean, "worst_low": 0.0, "worst_high": 1.0, "weakest": name}
        return Pooled(
            method="WT", delta=delta, scope=scope, name=name, distributions=1, nets=1, **ends, **worst
        )

    limit = {"method": "WT", "net": "0", "delta": 0.005, "value": 0.5, "low": 0, "high": 1, "probability": 1}
    limits = (
        Limit(distribution="fog 3", family="weather", **limit),
        Limit(distribution="clean", nominal=True, **limit),
    )
    found = Potential(
        limits=limits,
        pooled=(
            pooled("fog 3", 0.5),
            pooled("clean", 0.75),
            pooled("clean", 0.9, 0.05),
            pooled("all", 0, scope="shifted"),
        ),
    )
    (bars,) = series.potentials(found).values()
    assert bars == (Bar("clean", "", 75, 65, 80), Bar("fog 3", "weather", 50, 40, pytest.approx(55)))
    assert series.distributions(record(measured("a", 1.0), potential=found)) == ("clean",)


def test_excess_is_in_points_and_percent() -> None:
    point = {"subject": "a", "net": "0", "reference": 0.1, "value": 0.13, "low": 0.02, "high": 0.04}
    points = (
        Excess(method="WT", removed=0.5, difference=0.03, **point),
        Excess(method="WT", removed=0.2, difference=0.01, **point),
        Excess(method="FT", removed=0.1, difference=0.01, **point),
    )
    slope = Slope(method="WT", value=0.06, low=0.05, high=0.07, points=2)
    (fit,) = series.fits(ExcessError(slopes=(slope,), points=points))
    assert (fit.method, fit.slope, fit.low, fit.high) == ("WT", 6, 5, pytest.approx(7))
    assert [(dot.x, dot.y) for dot in fit.dots] == [(20, 1), (50, 3)]


def test_noise_has_a_line_for_each_model_and_the_yardstick_with_each_method() -> None:
    found = robust.robustness(methods=("WT", "FT"), points=2, shifts=1).similarity
    assert found is not None
    lines = series.noise(found, "matching")
    assert [line.label for line in lines["FT"]] == ["15 % removed", "97 % removed", "separate"]
    assert [line.method for line in lines["FT"]] == [1, 1, 0]
    assert len(lines["WT"][0].dots) == len(found.epsilons)
    first = lines["WT"][0].dots[0]
    assert first.y == pytest.approx(100 * float(found.matching[2, 0].mean()))
    assert first.low < first.y < first.high <= 100
    assert series.noise(found, "distance")["WT"][0].dots[0].y == pytest.approx(
        float(found.distance[2, 0].mean())
    )


def pruning_curves() -> PruningCurves:
    """Two seeds of one criterion, one of its control, one of another."""
    shares = {"rates": (0.0, 0.5), "removed": (0.0, 0.4), "params": (1.0, 0.5), "macs": (1.0, 0.5)}
    kinds = [("lrp", "least", 0, 3), ("lrp", "least", 1, 1), ("lrp", "most", 0, 0), ("random", "least", 0, 1)]
    return PruningCurves(
        curves=tuple(
            PruningCurve(
                criterion=criterion,
                order=order,
                seed=seed,
                right=torch.stack([torch.ones(4), torch.arange(4) < count]),
                **shares,
            )
            for criterion, order, seed, count in kinds
        )
    )


def test_pruning_curves_are_means_over_seeds() -> None:
    """75 and 25 % right at the rate of a half, 50 on average, and their standard error is 25."""
    lines = series.pruning(pruning_curves())
    assert [(line.label, line.method, line.role) for line in lines] == [
        ("lrp", 0, "pruned"), ("lrp, most needed first", 0, "control"), ("random", 1, "pruned")
    ]  # fmt: skip
    first, last = lines[0].dots
    assert first == Dot(0, 100, 100, 100)
    assert tuple(last) == pytest.approx((40, 50, 25, 75))
    assert tuple(lines[2].dots[1]) == pytest.approx((40, 25, 25, 25))


def test_compensations_have_lines_of_their_own() -> None:
    plain = pruning_curves()
    with_least_squares = tuple(replace(one, compensation="LeastSquares()") for one in plain.curves[3:])
    lines = series.pruning(PruningCurves(curves=plain.curves[3:] + with_least_squares))
    assert [line.label for line in lines] == ["random, none", "random, LeastSquares()"]
