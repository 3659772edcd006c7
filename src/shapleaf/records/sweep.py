"""Sweep: what the trials of a study found, as one tidy table."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import _store
from .._table import count
from ..errors import DataError
from ._base import Part, Record
from .outcomes import Observed, Outcomes, Subject

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Failure(Part):
    """A trial without a result, and why.

    Attributes:
        trial: what was tried, in words.
        error: what it raised, or that its workers died.
    """

    trial: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sweep(Record):
    """What :func:`shapleaf.sweep` found: one row for each thing measured in each trial.

    Attributes:
        study: its name.
        columns: what the rows hold, such as method, removed, distribution, accuracy.
        rows: the values, None where a trial has no such column.
        outcomes: what all models predicted, where the trials measured models.
        failed: the trials without a result.

    Raises:
        DataError: a row has more or fewer values than there are columns.

    >>> found = Sweep.of("toy", [{"method": "WT", "accuracy": 0.9}, {"method": "FT", "accuracy": 0.8}])
    >>> print(found)
    Sweep toy: 2 rows
    method  accuracy
    ──────  ────────
    WT           0.9
    FT           0.8
    >>> found.column("accuracy")
    (0.9, 0.8)
    """

    study: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    outcomes: Outcomes | None = None
    failed: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        wrong = next((row for row in self.rows if len(row) != len(self.columns)), None)
        if wrong is not None:
            raise DataError(
                f"a row has {count(len(wrong), 'value')}, expected one for each of {', '.join(self.columns)}."
            )

    @classmethod
    def of(cls, study: str, rows: Sequence[Mapping[str, Value]], outcomes: Outcomes | None = None) -> Sweep:
        """A sweep from rows by column; the columns stand in the order in which they first appear."""
        columns = tuple(dict.fromkeys(name for row in rows for name in row))
        values = tuple(tuple(row.get(name) for name in columns) for row in rows)
        return cls(study=study, columns=columns, rows=values, outcomes=outcomes)

    @classmethod
    def joined(cls, study: str, parts: Iterable[Sweep], failed: Sequence[Failure] = ()) -> Sweep:
        """The rows and outcomes of all parts, in their order.

        Raises:
            DataError: parts measured models on different data.
        """
        found = list(parts)
        rows = [dict(zip(part.columns, row, strict=True)) for part in found for row in part.rows]
        seen = [part.outcomes for part in found if part.outcomes is not None]
        joined = cls.of(study, rows, _joined(seen) if seen else None)
        return replace(joined, failed=tuple(failed))

    def column(self, name: str) -> tuple[Value, ...]:
        """All values of a column.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.columns:
            raise DataError(f"no column is named {name!r}; there are: {', '.join(self.columns)}.")
        place = self.columns.index(name)
        return tuple(row[place] for row in self.rows)

    def table(self) -> dict[str, Any]:
        footer = [f"failed: {failure.trial}: {failure.error}" for failure in self.failed]
        return {
            "title": f"Sweep {self.study}: {count(len(self.rows), 'row')}",
            "header": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "footer": "\n".join(footer),
        }

    def to_csv(self, path: str | os.PathLike[str] | None = None) -> str:
        """The table as comma-separated values, all digits kept, also written to a file if one is named.

        Raises:
            DataError: the place cannot be written.
        """
        sheet = io.StringIO()
        writer = csv.writer(sheet, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        if path is not None:
            with _store.atomic(path) as temporary:
                temporary.write_text(sheet.getvalue(), encoding="utf-8")
        return sheet.getvalue()


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    """The subjects of all parts beside each other; one that several parts measured counts once."""
    first = parts[0]
    subjects: dict[str, Subject] = {}
    chosen: list[list[int]] = []
    for part in parts:
        _same_data(first, part)
        new = [i for i, subject in enumerate(part.subjects) if subject.name not in subjects]
        for subject in part.subjects:
            known = subjects.setdefault(subject.name, subject)
            if known != subject:
                raise DataError(f"two trials measured different models under the name {subject.name!r}.")
        chosen.append(new)

    def beside(place: int, name: str) -> torch.Tensor:
        pieces = [
            getattr(part.observed[place], name)[new] for part, new in zip(parts, chosen, strict=True) if new
        ]
        return torch.cat(pieces)

    observed = tuple(
        replace(
            one,
            predicted=beside(place, "predicted"),
            confidence=beside(place, "confidence"),
            overlaps=None if one.overlaps is None else beside(place, "overlaps"),
        )
        for place, one in enumerate(first.observed)
    )
    return replace(first, subjects=tuple(subjects.values()), observed=observed)


def _same_data(first: Outcomes, other: Outcomes) -> None:
    def described(one: Observed) -> tuple[object, ...]:
        return one.distribution, one.nominal, one.family, one.overlaps is None, one.labels.tolist()

    same = len(first.observed) == len(other.observed) and all(
        described(a) == described(b) for a, b in zip(first.observed, other.observed, strict=True)
    )
    if not same or first.classes != other.classes:
        raise DataError("trials of one study measured their models on different data; join them apart.")
