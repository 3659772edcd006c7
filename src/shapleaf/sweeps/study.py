"""A study: the trials of a sweep, and the function that runs one."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import _store
from ..errors import DataError
from ..integrations.models import imported
from ..records.sweep import Sweep

Trial = Mapping[str, Any]
_SLUG = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a sweep tries.

    A trial is named by JSON values, such as ``{"method": "WT", "seed": 0}``. The study may grow: trials that
    a folder already holds are not run again. Its name, function and settings must stay as they are there.

    Attributes:
        name: what it is called.
        run: ``package.module:function``, imported and called as ``function(trial, folder, **settings)``; it
            returns a :class:`shapleaf.records.Sweep`, the rows of that trial. ``folder`` is the trial's own:
            what an interrupted run left there is there again. With equal arguments it must return equal rows.
        trials: unlike each other.
        settings: the same for all trials, JSON values.

    Raises:
        DataError: there is no trial, two are the same, or something is no JSON value.

    >>> Study(name="toy", run="package.module:function", trials=({"seed": 0}, {"seed": 1})).labels
    ('0', '1')
    """

    name: str
    run: str
    trials: tuple[Trial, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.trials:
            raise DataError(f"study {self.name!r} has no trials; give at least one.")
        _json(self.settings, "its settings")
        names = [_json(trial, f"trial {number}") for number, trial in enumerate(self.trials)]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"study {self.name!r} has a trial twice: {twice}.")

    @property
    def keys(self) -> tuple[str, ...]:
        """A name for each trial that depends on its values alone and can name a folder."""
        return tuple(map(_key, self.trials))

    @property
    def labels(self) -> tuple[str, ...]:
        """Each trial in a few words."""
        return tuple(map(label, self.trials))

    def function(self) -> Callable[..., Sweep]:
        """What ``run`` names.

        Raises:
            DataError: it cannot be imported or is no function.
        """
        found = imported(self.run)
        if not callable(found):
            raise DataError(f"{self.run} is a {type(found).__name__}, expected a function.")
        return found  # type: ignore[no-any-return]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Study:
        """The study that a TOML or JSON file describes; see :mod:`shapleaf.sweeps.description`.

        Raises:
            DataError: the file is missing or is no TOML or JSON, a key is unknown or has a wrong value, or
                what it names does not exist.
            BudgetError: keep ratios do not decrease.
        """
        from .description import read

        return read(path)

    def to_json(self) -> str:
        """The study as a JSON document, from which :meth:`from_json` makes it again."""
        return json.dumps(
            {"name": self.name, "run": self.run, "trials": self.trials, "settings": dict(self.settings)}
        )

    @classmethod
    def from_json(cls, text: str) -> Study:
        """What :meth:`to_json` wrote."""
        found = json.loads(text)
        return cls(**found | {"trials": tuple(found["trials"])})


def label(trial: Trial) -> str:
    """A trial in a few words: its values, those of nested ones by their name.

    >>> label({"network": {"name": "a", "model": "m:f"}, "method": "WT", "seed": 0})
    'a WT 0'
    """
    named = (value.get("name", "") if isinstance(value, Mapping) else value for value in trial.values())
    return " ".join(str(value) for value in named if value not in ("", None))


def bind(study: Study, folder: Path) -> None:
    """Make sure that the folder belongs to the study: a new one from now on does.

    Raises:
        DataError: it belongs to another study; the message says what differs.
    """
    path = folder / "study.json"
    own = json.loads(json.dumps({"name": study.name, "run": study.run, "settings": dict(study.settings)}))
    if not path.exists():
        with _store.atomic(path) as temporary:
            temporary.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Choose another folder.") from error
    if found != own:
        raise DataError(
            f"{folder} holds another study; {_difference(found, own)}. Choose another folder: "
            "only trials can be added to a study."
        )


def _difference(found: Any, own: dict[str, Any]) -> str:
    """The first thing in which two studies differ."""
    if not isinstance(found, dict):
        return "its study.json is no object"
    for name in ("name", "run"):
        if found.get(name) != own[name]:
            return f"its {name} is {found.get(name)!r}, not {own[name]!r}"
    path, before, after = list[str](), found.get("settings", {}), own["settings"]
    while isinstance(before, dict) and isinstance(after, dict):
        path += [next(name for name in [*before, *after] if before.get(name) != after.get(name))]
        before, after = before.get(path[-1]), after.get(path[-1])
    return f"there {'.'.join(path)} is {before!r}, here {after!r}"


def _json(value: Any, what: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be JSON values (text, numbers, lists …): {error}.") from error


def _key(trial: Trial) -> str:
    digest = hashlib.blake2b(json.dumps(trial, sort_keys=True).encode(), digest_size=8).hexdigest()
    words = re.sub(r"[^A-Za-z0-9.+]+", "-", label(trial)).strip("-.")[:_SLUG]
    return f"{words}-{digest}" if words else digest
