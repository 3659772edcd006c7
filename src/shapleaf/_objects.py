"""Small objects as JSON: their class by name, and numbers and words; nothing that is read is executed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from .errors import CriterionError, DataError

LIMIT = 1_000_000
"""Bytes of a file; more is no description of an object."""


def to_plain(value: Any, known: Collection[type]) -> dict[str, Any]:
    """A dataclass as a JSON object: its class under ``name``, and its fields.

    Args:
        value: an instance of one of the classes, with numbers, words and such instances as fields.
        known: the classes, all of which can be made without arguments.

    Raises:
        CriterionError: it is of another class.

    >>> from shapleaf.relevance import Gamma
    >>> to_plain(Gamma(0.1), [Gamma])
    {'name': 'Gamma', 'gamma': 0.1, 'eps': 1e-06}
    """
    if type(value) not in known:
        raise CriterionError(f"{value!r} cannot be saved as JSON; there are {_names(known)}.")
    found = {one.name: getattr(value, one.name) for one in fields(value)}
    plain = {name: to_plain(one, known) if is_dataclass(one) else one for name, one in found.items()}
    return {"name": type(value).__name__, **plain}


def from_plain(found: Any, known: Collection[type], where: str) -> Any:
    """What :func:`to_plain` described; fields that are left out have their defaults.

    Args:
        found: JSON values, from anywhere.
        known: the classes that may be named.
        where: what to call the place in messages.

    Raises:
        DataError: no such class, a field that it does not have, or a value that it does not take.

    >>> from shapleaf.relevance import Gamma
    >>> from_plain({"name": "Gamma", "gamma": 0.1}, [Gamma], "the rule")
    Gamma(gamma=0.1, eps=1e-06)
    """
    name = checked(found, where).get("name")
    chosen = next((one for one in known if one.__name__ == name), None)
    if chosen is None:
        raise DataError(f"{where} is named {name!r}; there are {_names(known)}.")
    usual = chosen()
    given = checked(found, where, ["name", *(one.name for one in fields(usual))])
    values = {key: value for key, value in given.items() if key != "name"}
    for key, value in values.items():
        place, default = f"{key} of {where}", getattr(usual, key)
        if is_dataclass(default):
            values[key] = from_plain(value, known, place)
        elif isinstance(default, float):
            values[key] = _number(value, place)
        elif isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(f"{place} is {value!r}, expected a whole number or a word.")
    try:
        return chosen(**values)
    except CriterionError as error:
        raise DataError(f"{where}: {error}") from error


def checked(found: Any, where: str, keys: Collection[str] | None = None) -> dict[str, Any]:
    """The JSON object, if it is one and has no key but these.

    Raises:
        DataError: it is something else, or a key is unknown.

    >>> checked({"a": 1}, "it", ["a", "b"])
    {'a': 1}
    """
    if not isinstance(found, dict):
        raise DataError(f"{where} is a {type(found).__name__}, expected an object.")
    unknown = [key for key in found if keys is not None and key not in keys]
    if keys is not None and unknown:
        raise DataError(f"{where} has an unknown key {unknown[0]!r}; there are {', '.join(keys)}.")
    return found


def _number(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        try:
            return float(value)
        except OverflowError:
            pass
    raise DataError(f"{where} is {str(value)[:40]!r}, expected a finite number.")


def _names(known: Collection[type]) -> str:
    return ", ".join(one.__name__ for one in known)


def read(path: str | os.PathLike[str]) -> Any:
    """The JSON values in a small file.

    Raises:
        DataError: it is missing, unreadable, too large, or no JSON.

    >>> read("nowhere.json")
    Traceback (most recent call last):
    shapleaf.errors.DataError: cannot read nowhere.json: No such file or directory.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(LIMIT + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(content) > LIMIT:
        raise DataError(f"{path} is larger than {LIMIT:,} bytes, too large for what it should describe.")
    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}.") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found
