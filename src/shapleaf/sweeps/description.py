"""Studies as files: TOML or JSON, in which every key is known and nothing is executed.

A study of pruning::

    name = "resnet20"
    methods = ["WT", "FT", "Shapley"]        # names from shapleaf.retraining.METHODS
    seeds = [0, 1]

    [[networks]]                             # as many as you like
    name = "a"
    model = "package.module:factory"         # or torchvision:NAME, timm:NAME
    weights = "a.safetensors"

    [data]
    spec = "cifar10:DIR"
    test = 2000                              # of the test images

    [shifts]                                 # by default all corruptions at severity 3
    corruptions = ["fog", "gaussian_noise"]
    gaussian = [0.1]

    [retraining]
    preset = "minutes"                       # or hours, paper; what follows differs from it
    keeps = [0.8, 0.5, 0.2]
    epochs = 2
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DataError
from .pruning import Pruning
from .study import Study


class Trials(BaseModel):
    """A study of any other kind: its trials one by one, and the function that runs them.

    Attributes:
        name: what it is called.
        run: ``package.module:function``; see :class:`shapleaf.Study`.
        trials: a table of values each.
        settings: the same for all trials.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1)
    run: str
    trials: list[dict[str, Any]] = Field(min_length=1)
    settings: dict[str, Any] = {}

    def study(self) -> Study:
        """The study."""
        return Study(name=self.name, run=self.run, trials=tuple(self.trials), settings=self.settings)


def read(path: str | os.PathLike[str]) -> Study:
    """The study that a file describes: one of pruning, or with ``run`` of trials one by one.

    Paths in it are seen from the current folder.

    Raises:
        DataError: the file is missing or is no TOML or JSON, a key is unknown or has a wrong value, or what
            it names does not exist.
        BudgetError: keep ratios do not decrease.
    """
    found = _parsed(Path(path))
    kind: type[Trials | Pruning] = Trials if "run" in found else Pruning
    try:
        described = kind.model_validate(found)
    except ValidationError as error:
        raise DataError(f"{path}: {_first(error, kind)}") from error
    return described.study()


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}.") from error
    try:
        found = json.loads(text) if path.suffix == ".json" else _toml(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise DataError(f"{path} is no {kind}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, expected an object with name, methods …")
    return found


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise DataError("studies in TOML need Python 3.11; describe this one in JSON.") from error
    return tomllib.loads(text)


def _first(error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong first, and what would be right."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key {place!r}; there are: {', '.join(_fields(kind, first['loc'][:-1]))}."
    if first["type"] == "missing":
        return f"{place!r} is missing."
    return f"{place!r} is {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."


def _fields(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The keys at a place."""
    for name in place:
        if isinstance(name, str):
            annotation: Any = kind.model_fields[name].annotation
            kind = get_args(annotation)[0] if get_args(annotation) else annotation
    return list(kind.model_fields)
