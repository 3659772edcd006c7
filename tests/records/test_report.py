"""Reports: look-up by metric and the table; the page is tested with reporting."""

import pytest

from shapleaf.records import Measurement, Report


def test_it_prints_values_beside_references(report: Report) -> None:
    assert str(report) == (
        "slim\n"
        "metric    unit  reference  value  interval  change\n"
        "────────  ────  ─────────  ─────  ────────  ────────────\n"
        "accuracy  %            92   91.5  90 to 93  -0.50 points\n"
        "latency   ms            3    1.5  -         x 0.5\n"
        "loss                    -    nan  -         -\n"
        "device=cpu"
    )


def test_metrics_by_name(report: Report) -> None:
    assert report["latency"].value == 1.5
    with pytest.raises(KeyError, match="no metric 'speed'; measured: accuracy, latency, loss"):
        report["speed"]


@pytest.mark.parametrize(("reference", "change"), [(None, "-"), (0.0, "-"), (4.0, "x 0.5"), (-4.0, "x -0.5")])
def test_change_is_a_factor_where_one_can_be_taken(reference: float | None, change: str) -> None:
    report = Report(title="t", rows=(Measurement(metric="m", value=2.0, reference=reference),))
    assert str(report).splitlines()[-1].endswith(f"  {change}")


def test_half_an_interval_is_none() -> None:
    report = Report(title="t", rows=(Measurement(metric="m", value=2.0, low=1.0),))
    assert str(report).splitlines()[-1].split() == ["m", "-", "2", "-", "-"]
