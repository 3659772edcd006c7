"""Paths on a canvas of 320 by 196."""

from __future__ import annotations

import re

import pytest

from shapleaf.reporting.charts import BOTTOM, RIGHT, TOP
from shapleaf.reporting.lines import DRAWN, STYLES, Frame, Layer, mark, thinned
from shapleaf.reporting.series import Dot

DOTS = (Dot(0.0, 0.0, 0.0, 1.0), Dot(50.0, 5.0, 4.0, 6.0), Dot(100.0, 10.0, 8.0, 10.0))


def test_the_ends_of_the_axes_stand_at_the_ends_of_the_canvas() -> None:
    frame = Frame((0.0, 100.0), DOTS)
    assert (frame.x(0), frame.x(100)) == (40, RIGHT)
    assert TOP <= frame.y(10) < frame.y(5) < frame.y(0) <= BOTTOM
    assert frame.y(5) == pytest.approx((TOP + BOTTOM) / 2)


def test_paths() -> None:
    frame = Frame((0.0, 100.0), DOTS)
    assert frame.line(DOTS[:2]) == "M40 154L172 92"
    assert frame.level(DOTS[1]) == "M40 92H304"
    assert frame.bars(DOTS[1:2]) == "M172 104.4V79.6"
    assert frame.band(DOTS[:2]) == "M40 141.6L172 79.6L172 104.4L40 154z"
    assert frame.marks(DOTS[1:2], 0) == Layer("mark round s0", "M172 92h0")


def test_whole_numbers_are_shorter() -> None:
    assert Frame((0.0, 100.0), DOTS, whole=True).bars(DOTS[1:2]) == "M172 104V80"


def test_a_plot_names_both_axes_and_counts_in_powers_of_ten() -> None:
    dots = [Dot(0.0, 1e-5, 1e-5, 1e-5), Dot(1.0, 4e-5, 4e-5, 4e-5)]
    plot = Frame((0.0, 1.0), dots).plot("n", ("size (m)", "error (m)"), [], told="told", note="beside")
    assert (plot.x_label, plot.y_label) == ("size (m)", "error (m) in 10⁻⁵")
    assert [tick.label for tick in plot.y] == ["0", "1", "2", "3", "4"]
    assert (plot.name, plot.note, plot.told) == ("n", "beside", "told")
    assert plot.zero == pytest.approx(BOTTOM - 0.03 * (BOTTOM - TOP), abs=0.05)


def test_an_empty_frame_has_axes_all_the_same() -> None:
    plot = Frame((0.0, 1.0), []).plot("n", ("x", "y"), [], told="")
    assert plot.x
    assert plot.y


def test_every_method_has_a_mark_of_its_own_and_then_they_repeat() -> None:
    marks = [mark(style) for style in range(STYLES)]
    assert len(set(marks)) == STYLES
    assert mark(STYLES) == marks[0]
    assert all(re.fullmatch(r"mark (round|square|solid|open) s\d", layer.style) for layer in marks)


def test_long_lines_are_thinned_and_keep_their_ends() -> None:
    dots = [Dot(float(i), 0.0, 0.0, 0.0) for i in range(100)]
    assert len(thinned(dots)) == DRAWN
    assert thinned(dots)[0].x == 0
    assert thinned(dots)[-1].x == 99
