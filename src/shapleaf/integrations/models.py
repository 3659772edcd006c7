"""Models by name: torchvision, timm, or a factory in the user's own code; with weights from a file."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import DataError
from . import require

_SHOWN = 3


def load_model(
    spec: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """A model in eval mode, randomly initialised or with weights from a file; nothing is downloaded.

    Args:
        spec: ``torchvision:NAME``, ``timm:NAME``, or ``package.module:NAME``: a module, or a class or
            function that returns one when called without arguments. The current folder can be imported
            from; a factory is code, and it runs.
        weights: a safetensors file, or a state dict written by ``torch.save``, also under the key
            ``state_dict`` or ``model`` and with the ``module.`` prefix of data-parallel training. Only
            tensors are read: a pickle that holds anything else is refused.
        num_classes: how many classes a torchvision or timm model is built for.

    Raises:
        DataError: the spec names nothing, or the weights cannot be read or do not fit.
        MissingExtraError: torchvision or timm is not installed, or does not fit this torch.

    >>> load_model("torch.nn:Identity")
    Identity()
    """
    source, _, name = spec.partition(":")
    if source == "torchvision" and name:
        model = _torchvision(name, num_classes)
    elif source == "timm" and name:
        model = _timm(name, num_classes)
    elif num_classes is not None:
        raise DataError(f"num_classes is for torchvision and timm; let the factory {spec} set it instead.")
    else:
        model = _made(spec)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load weights that fit the model exactly, in place; tied tensors need to be in the file once.

    Args:
        model: takes the weights in its own precision.
        path: as ``weights`` of :func:`load_model`.

    Raises:
        DataError: the file cannot be read, or its names or shapes differ; the message shows the first.

    >>> load_weights(torch.nn.Identity(), "nowhere.pt")
    Traceback (most recent call last):
    shapleaf.errors.DataError: the weights nowhere.pt do not exist.
    """
    state = _read(Path(path))
    own = model.state_dict(keep_vars=True)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items() if isinstance(tensor, Tensor)}
    wrong = [name for name in state if name in shapes and tuple(state[name].shape) != shapes[name]]
    if wrong:
        listed = [f"{name} is {tuple(state[name].shape)}, expected {shapes[name]}" for name in wrong]
        raise DataError(f"{path} does not fit the model: {_few(listed)}.{_class_hint(state, shapes, wrong)}")
    missing, unexpected = model.load_state_dict(state, strict=False)
    loaded = {id(own[name]) for name in state if name in own}
    missing = [name for name in missing if id(own[name]) not in loaded]
    found = (("it lacks", missing), ("it also has", unexpected))
    problems = [f"{what} {_few(names)}" for what, names in found if names]
    if problems:
        raise DataError(f"{path} does not fit the model: {'; '.join(problems)}.")


def imported(spec: str) -> Any:
    """What ``package.module:NAME`` stands for; the current folder can be imported from.

    Raises:
        DataError: there is no such module, or no such name in it.

    >>> imported("torch.nn:Identity").__name__
    'Identity'
    """
    source, _, name = spec.partition(":")
    if not source or not name:
        raise DataError(
            f"{spec!r} names nothing: expected 'package.module:NAME', or for a model also "
            "'torchvision:NAME' or 'timm:NAME'."
        )
    try:
        with _current_folder_importable():
            module = importlib.import_module(source)
    except ImportError as error:
        raise DataError(
            f"cannot import {source}: {error}. Give a module that Python finds from {Path.cwd()}."
        ) from error
    try:
        return attrgetter(name)(module)
    except AttributeError as error:
        near = get_close_matches(name, dir(module), n=_SHOWN)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise DataError(f"{source} has no {name!r}.{hint}") from error


def _torchvision(name: str, num_classes: int | None) -> nn.Module:
    models = require("torchvision.models", "vision")
    _known(name, models.list_models(), "torchvision")
    options: dict[str, Any] = {"weights": None, **_classes(num_classes)}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # detection and segmentation models would download it
    return _built(models.get_model(name, **options))


def _timm(name: str, num_classes: int | None) -> nn.Module:
    timm = require("timm", "vision")
    _known(name, timm.list_models(), "timm")
    return _built(timm.create_model(name, pretrained=False, **_classes(num_classes)))


def _classes(num_classes: int | None) -> dict[str, int]:
    return {} if num_classes is None else {"num_classes": num_classes}


def _known(name: str, names: list[str], source: str) -> None:
    if name not in names:
        near = get_close_matches(name, names, n=_SHOWN, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise DataError(f"{source} has no model {name!r}; it has {len(names)} others.{hint}")


def _made(spec: str) -> nn.Module:
    found = imported(spec)
    if isinstance(found, nn.Module) or not callable(found):
        return _built(found)
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise DataError(f"{spec} cannot be called without arguments: {error}.") from error
    with _current_folder_importable():
        return _built(found())


def _built(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise DataError(
            f"expected a torch.nn.Module or a function returning one, received a {type(model).__name__}."
        )
    return model


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _few(items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def _class_hint(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], wrong: list[str]) -> str:
    """What to pass if the only difference is the number of classes."""
    heads = {(*state[name].shape[:1], *shapes[name][:1]) for name in wrong}
    same_inputs = all(tuple(state[name].shape[1:]) == shapes[name][1:] for name in wrong)
    if len(heads) != 1 or not same_inputs:
        return ""
    return f" If these are the classes, build the model with num_classes={heads.pop()[0]}."


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"the weights {path} do not exist.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except SafetensorError as error:
        raise DataError(f"{path} is not a safetensors file, or is damaged: {error}.") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(map(_is_entry, state.items())):
        raise DataError(
            f"{path} holds no state dict (a mapping of names to tensors) but a {type(state).__name__}."
        )
    parallel = all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if parallel else name: tensor for name, tensor in state.items()}


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _unpickled(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what counts is the outcome
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} was refused: it is no state dict of tensors alone, and unpickling anything else can run "
            "code. Write it with torch.save(model.state_dict(), ...), or better as safetensors."
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise whatever it stumbles on
        raise DataError(f"{path} is not a file written by torch.save, or is damaged: {error}.") from error
