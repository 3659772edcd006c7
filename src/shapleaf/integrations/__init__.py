"""Models and data by name, from the zoos and file formats that the field uses; callbacks for its trainers."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import MissingExtraError


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: it is not installed, or was built for another torch; the message names the extra.

    >>> require("no_such_zoo.models", "vision")
    Traceback (most recent call last):
    shapleaf.errors.MissingExtraError: no_such_zoo cannot be imported (No module named 'no_such_zoo'). \
Install it, in a version that fits the installed torch: pip install 'shapleaf[vision]'
    """
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # torchvision raises RuntimeError beside another torch
        raise MissingExtraError(
            f"{module.partition('.')[0]} cannot be imported ({error}). "
            f"Install it, in a version that fits the installed torch: pip install 'shapleaf[{extra}]'"
        ) from error
