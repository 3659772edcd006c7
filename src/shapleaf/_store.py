"""Records as files: one safetensors file, its JSON document in the header.

Nothing is ever unpickled or executed: tensors come from safetensors, everything
else is JSON checked against the record's type annotations.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, core_schema
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes

from .errors import DataError

SCHEMA = 1
_KEY = "shapleaf"
R = TypeVar("R")


class _Codec:
    """Tensors leave the JSON document for the safetensors part, named ``#0``, ``#1`` and so on."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        def load(value: object, info: core_schema.ValidationInfo) -> torch.Tensor:
            if isinstance(value, torch.Tensor):
                return value
            tensors: dict[str, torch.Tensor] = (info.context or {}).get("tensors", {})
            if not isinstance(value, str) or value not in tensors:
                raise ValueError(f"no tensor named {value!r} in the file")
            return tensors[value]

        def dump(value: torch.Tensor, info: core_schema.SerializationInfo) -> object:
            tensors = (info.context or {}).get("tensors")
            if tensors is None:
                return value.tolist()
            name = f"#{len(tensors)}"
            tensors[name] = value.detach().cpu().contiguous().clone()
            return name

        return core_schema.with_info_plain_validator_function(
            load,
            serialization=core_schema.plain_serializer_function_ser_schema(dump, info_arg=True),
        )


Tensor = Annotated[torch.Tensor, _Codec]


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(cls: type) -> TypeAdapter[Any]:
    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def to_jsonable(record: object) -> Any:
    """The record as plain JSON values, tensors as nested lists."""
    return _adapter(type(record)).dump_python(record, mode="json", context={})


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it only when the block succeeds."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}. Choose a folder you can write to."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def save(record: object, path: str | os.PathLike[str]) -> None:
    """Write a record atomically; an interrupted write leaves the old file in place.

    Raises:
        DataError: the place cannot be written, or a field holds what its annotation does not allow.
    """
    header, tensors = pack(record)
    with atomic(path) as temporary:
        temporary.write_bytes(tensors_to_bytes(tensors, metadata={_KEY: header}))


def pack(record: object) -> tuple[str, dict[str, torch.Tensor]]:
    """A record as a JSON document and the tensors it names, copies on the CPU.

    Raises:
        DataError: a field holds what its annotation does not allow.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        document = _adapter(type(record)).dump_python(
            record, mode="json", context={"tensors": tensors}, warnings="error"
        )
    except PydanticSerializationError as error:
        raise DataError(
            f"this {type(record).__name__} cannot be saved; use Python's own numbers and strings in it: "
            f"{error}."
        ) from error
    return json.dumps({"schema": SCHEMA, "kind": type(record).__name__, "record": document}), tensors


def load(cls: type[R], path: str | os.PathLike[str]) -> R:
    """Read a record of the given class.

    Raises:
        DataError: the file is missing, truncated, of another kind or another schema,
            or its contents do not fit the record.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = metadata[_KEY]
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error
    return unpack(cls, header, tensors, where=path)


def kind(path: str | os.PathLike[str]) -> str:
    """The class of the record in a file, by its name; empty where there is none.

    Raises:
        DataError: the file is missing, or no record.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {})[_KEY])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    return str(found.get("kind", "")) if isinstance(found, dict) else ""


def unpack(
    cls: type[R], header: str, tensors: Mapping[str, torch.Tensor], *, where: str | os.PathLike[str]
) -> R:
    """The record that :func:`pack` took apart.

    Raises:
        DataError: it is damaged, of another kind or another schema; ``where`` names it in the message.
    """
    try:
        found = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, error) from error
    if not isinstance(found, dict):
        raise DataError(f"{where} is not a record saved by shapleaf: its header is no object.")
    kind = found.get("kind")
    if kind != cls.__name__:
        raise DataError(f"{where} holds a {kind}, not a {cls.__name__}.")
    if found.get("schema") != SCHEMA:
        raise DataError(
            f"{where} was written with schema {found.get('schema')}; this shapleaf reads {SCHEMA}. "
            "Write it again with this version."
        )
    try:
        record: R = _adapter(cls).validate_python(found.get("record"), context={"tensors": tensors})
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}." for part in first["loc"])[:-1]
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise DataError(
            f"{where} is not a valid {cls.__name__}: {f'at {place}: ' if place else ''}{message}."
        ) from error
    return record


def _damaged(where: str | os.PathLike[str], error: Exception) -> DataError:
    return DataError(
        f"{where} is not a record saved by shapleaf, or is damaged ({type(error).__name__}: {error})."
    )
