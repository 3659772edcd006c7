"""The geometry of charts with two numeric axes: from dots in units of the axes to path data.

They stand on the same canvas as the charts of scores; see :mod:`shapleaf.reporting.charts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .charts import BOTTOM, RIGHT, TOP, Axis, Tick, axis, spread
from .series import Dot

DRAWN = 24  # dots of a line: more than a curve of 20 rates has
STYLES = 8  # colours, marks and dashes; more methods repeat them
_MARKS = (
    "h0",
    "h0",
    "m0-3.4l3.2 5.6h-6.4z",
    "m0-3.5l3 3.5-3 3.5-3-3.5z",
    "m-3 0h6m-3-3v6",
    "m-2.4-2.4l4.8 4.8m0-4.8l-4.8 4.8",
    "m0 3.4l3.2-5.6h-6.4z",
    "m-2.9 0h5.8m-4.4-2.5l3 5m0-5l-3 5",
)
_KINDS = ("round", "square", "solid", "solid", "open", "open", "solid", "open")


class Layer(NamedTuple):
    """One path: the classes that style it, and its data."""

    style: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A chart, ready to be drawn.

    Attributes:
        name: its heading.
        note: what stands beside the heading; or empty.
        told: the chart in words.
        x_label: what the horizontal axis is, with its unit.
        y_label: what the vertical axis is, with its unit.
        left: where the plot begins, right of the labels.
        zero: height of the zero line, None if it is not in view.
        x: the ticks of the horizontal axis.
        y: those of the vertical one.
        layers: the paths, those at the back first.
    """

    name: str
    note: str
    told: str
    x_label: str
    y_label: str
    left: float
    zero: float | None
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    layers: tuple[Layer, ...]


class Frame:
    """Axes that hold some dots with their intervals, and paths on them.

    Args:
        x: ends of the horizontal axis.
        dots: what must be in view.
        whole: whether coordinates are rounded to whole numbers, for a shorter page.

    >>> frame = Frame((0.0, 100.0), [Dot(50.0, 2.0, 1.0, 3.0)])
    >>> frame.line([Dot(0.0, 0.0, 0, 0), Dot(100.0, 3.0, 0, 0)])
    'M40 154L304 30'
    """

    def __init__(self, x: tuple[float, float], dots: Iterable[Dot], *, whole: bool = False) -> None:
        ends = [end for dot in dots for end in (dot.low, dot.high)]
        self._x: Axis = axis(*x)
        self._y: Axis = axis(min(ends), max(ends)) if ends else axis(0.0, 1.0)
        self._span, self._digits = x, 0 if whole else 1
        self.left = max(40.0, 10 + 6.5 * max(map(len, self._y.labels)))

    def x(self, value: float) -> float:
        """Where a value stands on the canvas, from the left."""
        low, high = self._span
        return self.left + (RIGHT - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a value stands on the canvas, from the top."""
        return BOTTOM - (BOTTOM - TOP) * self._y.place(value)

    def line(self, dots: Sequence[Dot]) -> str:
        """From dot to dot."""
        places = [f"{self._n(self.x(dot.x))} {self._n(self.y(dot.y))}" for dot in thinned(dots)]
        return f"M{'L'.join(places)}"

    def level(self, dot: Dot) -> str:
        """From side to side at the height of a dot."""
        return f"M{self._n(self.left)} {self._n(self.y(dot.y))}H{self._n(RIGHT)}"

    def band(self, dots: Sequence[Dot]) -> str:
        """The area between the ends of the dots' intervals."""
        dots = thinned(dots)
        there = [f"{self._n(self.x(dot.x))} {self._n(self.y(dot.high))}" for dot in dots]
        back = [f"{self._n(self.x(dot.x))} {self._n(self.y(dot.low))}" for dot in reversed(dots)]
        return f"M{'L'.join([*there, *back])}z"

    def bars(self, dots: Sequence[Dot]) -> str:
        """The dots' intervals as upright strokes."""
        return "".join(
            f"M{self._n(self.x(dot.x))} {self._n(self.y(dot.low))}V{self._n(self.y(dot.high))}"
            for dot in dots
        )

    def marks(self, dots: Sequence[Dot], style: int) -> Layer:
        """A mark on each dot, in the style of a method."""
        at = [f"M{self._n(self.x(dot.x))} {self._n(self.y(dot.y))}" for dot in thinned(dots)]
        return mark(style, at)

    def _n(self, value: float) -> str:
        """A coordinate, as short as it goes."""
        return f"{value:.{self._digits}f}".removesuffix(".0")

    def plot(
        self, name: str, axes: tuple[str, str], layers: Sequence[Layer], *, told: str, note: str = ""
    ) -> Plot:
        """The chart of these paths.

        Args:
            name: its heading.
            axes: what x and y are, with units.
            layers: the paths, those at the back first.
            told: the chart in words.
            note: what stands beside the heading.
        """
        steps = ((self._x, self.x), (self._y, self.y))
        x, y = (
            tuple(Tick(round(at(s), 1), text) for s, text in zip(one.steps, one.labels, strict=True))
            for one, at in steps
        )
        zero = round(self.y(0.0), 1) if self._y.low <= 0 <= self._y.high else None
        return Plot(
            name=name,
            note=note,
            told=told,
            x_label=axes[0],
            y_label=f"{axes[1]} in {self._y.exponent}" if self._y.exponent else axes[1],
            left=self.left,
            zero=zero,
            x=x,
            y=y,
            layers=tuple(layers),
        )


def mark(style: int, at: Iterable[str] = ("M7 7",)) -> Layer:
    """The mark of a method, where the paths begin; by default in the middle of a key's little canvas.

    >>> mark(0)
    Layer(style='mark round s0', path='M7 7h0')
    """
    kind = style % STYLES
    return Layer(f"mark {_KINDS[kind]} s{kind}", "".join(place + _MARKS[kind] for place in at))


def thinned(dots: Sequence[Dot]) -> list[Dot]:
    """Not all of very many dots: so many, evenly apart, both ends included."""
    return [dots[place] for place in spread(range(len(dots)), DRAWN)]
