"""Files: written whole or not at all, and read without trusting them."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from shapleaf import _store
from shapleaf._store import Tensor
from shapleaf.errors import DataError


@dataclass(frozen=True)
class Leaf:
    weight: Tensor
    count: int = 0


@dataclass(frozen=True)
class Tree:
    name: str
    leaves: dict[str, Leaf]


TREE = Tree(name="t", leaves={"a": Leaf(torch.eye(2), 3), "b": Leaf(torch.tensor([], dtype=torch.int64))})


def write(path: Path, header: Any, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """A safetensors file with any header."""
    text = header if isinstance(header, str) else json.dumps(header)
    path.write_bytes(save(tensors or {}, metadata={"shapleaf": text}))
    return path


def header(**changes: Any) -> dict[str, Any]:
    """That of a valid Tree with one leaf, its tensor named #0."""
    record = {"name": "t", "leaves": {"a": {"weight": "#0", "count": 1}}, **changes}
    return {"schema": 1, "kind": "Tree", "record": record}


def test_records_with_tensors_round_trip(tmp_path: Path) -> None:
    _store.save(TREE, tmp_path / "tree")
    loaded = _store.load(Tree, tmp_path / "tree")
    assert loaded.name == "t"
    assert loaded.leaves["a"].count == 3
    assert torch.equal(loaded.leaves["a"].weight, torch.eye(2))
    assert loaded.leaves["b"].weight.dtype == torch.int64
    assert loaded.leaves["b"].weight.shape == (0,)


def test_it_is_one_safetensors_file_with_a_json_header(tmp_path: Path) -> None:
    _store.save(TREE, tmp_path / "tree")
    content = (tmp_path / "tree").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    document = json.loads(metadata["shapleaf"])
    assert (document["schema"], document["kind"]) == (1, "Tree")
    assert document["record"]["leaves"]["a"] == {"weight": "#0", "count": 3}


def test_views_and_gradients_are_stored_as_plain_values(tmp_path: Path) -> None:
    column = torch.arange(6.0, requires_grad=True).view(3, 2).T[0]
    _store.save(Leaf(column), tmp_path / "leaf")
    assert _store.load(Leaf, tmp_path / "leaf").weight.tolist() == [0, 2, 4]


def test_jsonable_holds_nested_lists() -> None:
    assert _store.to_jsonable(TREE)["leaves"]["a"] == {"weight": [[1, 0], [0, 1]], "count": 3}


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(
        [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
    ),
    shape=st.lists(st.integers(0, 3), max_size=4),
)
def test_tensors_of_any_type_and_shape(tmp_path_factory: pytest.TempPathFactory, dtype, shape) -> None:
    path = tmp_path_factory.mktemp("any") / "leaf"
    tensor = (torch.arange(81).view(3, 3, 3, 3) % 2).to(dtype)[tuple(slice(size) for size in shape)]
    _store.save(Leaf(tensor), path)
    loaded = _store.load(Leaf, path).weight
    assert loaded.dtype == dtype
    assert torch.equal(loaded, tensor)


# Writing


def test_missing_folders_are_made_and_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _store.save(TREE, tmp_path / "a" / "b" / "tree")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b" / "tree").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failure_in_the_middle_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "tree"
    _store.save(TREE, path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "replace") if step == "replace" else (Path, "write_bytes")), fail)
    with pytest.raises(DataError, match=r"cannot write .*tree: No space left on device"):
        _store.save(Tree(name="new", leaves={}), path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tree"]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("old")

    def interrupted() -> None:
        with _store.atomic(path) as temporary:
            temporary.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="Choose a folder you can write to"):
        _store.save(TREE, tmp_path / "file" / "tree")
    assert (tmp_path / "file").read_text() == "mine"
    assert len([*tmp_path.iterdir()]) == 1


def test_a_folder_as_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot write .*folder"):
        _store.save(TREE, tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("leaf", [Leaf(torch.ones(1), count="three"), Leaf("no tensor")])  # type: ignore[arg-type]
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, leaf: Leaf) -> None:
    with pytest.raises(DataError, match="this Leaf cannot be saved"):
        _store.save(leaf, tmp_path / "leaf")
    assert not [*tmp_path.iterdir()]


# Reading


class Bomb:
    """Unpickling it would make a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.place),)


FOREIGN: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"hello, this is no record at all",
    "json": lambda _: json.dumps(header()).encode(),
    "pickle": lambda folder: pickle.dumps(Bomb(folder / "executed")),
    "checkpoint": lambda folder: _checkpoint(folder / "executed"),
    "huge header length": lambda _: struct.pack("<Q", 2**63) + b"{}",
    "long header length": lambda _: struct.pack("<Q", 10**8) + b"{}" * 10,
    "header not closed": lambda _: struct.pack("<Q", 10) + b'{"a":{"b":',
    "header not text": lambda _: struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "other tensors": lambda _: save({"weight": torch.ones(3)}),
    "other metadata": lambda _: save({"weight": torch.ones(3)}, metadata={"format": "pt"}),
}


def _checkpoint(place: Path) -> bytes:
    place.parent.mkdir(exist_ok=True)
    torch.save({"bomb": Bomb(place)}, place.parent / "checkpoint")
    content = (place.parent / "checkpoint").read_bytes()
    (place.parent / "checkpoint").unlink()
    return content


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_refused_and_nothing_runs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(FOREIGN[kind](tmp_path))
    with pytest.raises(DataError, match=r"file is not a record saved by shapleaf, or is damaged \("):
        _store.load(Tree, path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    _store.save(TREE, tmp_path / "tree")
    content = (tmp_path / "tree").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "tree").write_bytes(content[:length])
        with pytest.raises(DataError, match="is damaged"):
            _store.load(Tree, tmp_path / "tree")


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    _store.save(TREE, tmp_path / "tree")
    with (tmp_path / "tree").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="is damaged"):
        _store.load(Tree, tmp_path / "tree")


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"' + "\\ud800" + "x"],
    ids=["empty", "open", "word", "lists", "objects", "digits", "string"],
)
def test_headers_that_are_no_json_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="is damaged"):
        _store.load(Tree, write(tmp_path / "tree", text))


@pytest.mark.parametrize("value", [[], '"Tree"', 3, None])
def test_headers_that_are_no_object_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match="its header is no object"):
        _store.load(Tree, write(tmp_path / "tree", value))


def test_another_kind_is_named(tmp_path: Path) -> None:
    _store.save(Leaf(torch.ones(1)), tmp_path / "leaf")
    with pytest.raises(DataError, match=r"leaf holds a Leaf, not a Tree\."):
        _store.load(Tree, tmp_path / "leaf")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_named(tmp_path: Path, schema: object) -> None:
    path = write(tmp_path / "tree", {**header(), "schema": schema}, {"#0": torch.ones(1)})
    with pytest.raises(DataError, match=f"was written with schema {schema}; this shapleaf reads 1"):
        _store.load(Tree, path)


def test_the_header_that_the_tests_change_is_valid(tmp_path: Path) -> None:
    assert _store.load(Tree, write(tmp_path / "tree", header(), {"#0": torch.ones(1)})).name == "t"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "at name: Input should be a valid string"),
        ({"leaves": []}, "at leaves: Input should be a valid dictionary"),
        ({"leaves": {"a": None}}, r"at leaves\.a: "),
        ({"leaves": {"a": {"count": 1}}}, r"at leaves\.a\.weight: Field required"),
        (
            {"leaves": {"a": {"weight": "#0", "count": "many"}}},
            r"at leaves\.a\.count: Input should be a valid int",
        ),
        ({"leaves": {"a": {"weight": "#0", "count": 1.5}}}, r"at leaves\.a\.count: "),
        ({"leaves": {"a": {"weight": "#1"}}}, r"at leaves\.a\.weight: no tensor named '#1' in the file"),
        ({"leaves": {"a": {"weight": 0}}}, r"at leaves\.a\.weight: no tensor named 0 in the file"),
        ({"leaves": {"a": {"weight": [1.0]}}}, r"at leaves\.a\.weight: no tensor named \[1\.0\]"),
        ({"leaves": {"a": {"weight": {"__class__": "os"}}}}, r"at leaves\.a\.weight: no tensor named"),
    ],
)
def test_contents_that_do_not_fit_are_located(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "tree", header(**changes), {"#0": torch.ones(1)})
    with pytest.raises(DataError, match=f"tree is not a valid Tree: {message}"):
        _store.load(Tree, path)


@pytest.mark.parametrize("record", [None, [], "t", 3])
def test_a_record_that_is_no_object_is_refused(tmp_path: Path, record: object) -> None:
    path = write(tmp_path / "tree", {**header(), "record": record})
    with pytest.raises(DataError, match="not a valid Tree: Input should be a dictionary"):
        _store.load(Tree, path)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
)
def test_no_document_does_more_than_raise(tmp_path_factory: pytest.TempPathFactory, record: object) -> None:
    path = write(tmp_path_factory.mktemp("any") / "tree", {**header(), "record": record})
    with pytest.raises(DataError):
        _store.load(Tree, path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing does not exist\."):
        _store.load(Tree, tmp_path / "nothing")
    with pytest.raises(DataError, match="cannot read"):
        _store.load(Tree, tmp_path)


def test_a_file_of_another_library_is_left_as_it_is(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(DataError):
        _store.load(Tree, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_records_are_packed_into_strings_and_tensors_and_back() -> None:
    text, tensors = _store.pack(TREE)
    assert json.loads(text)["record"]["leaves"]["a"] == {"weight": "#0", "count": 3}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"#0": (2, 2), "#1": (0,)}
    assert torch.equal(_store.unpack(Tree, text, tensors, where="here").leaves["a"].weight, torch.eye(2))
    for wrong, message in (
        ("[]", "here is not a record"),
        ("{", "or is damaged"),
        ("{}", "here holds a None"),
    ):
        with pytest.raises(DataError, match=message):
            _store.unpack(Tree, wrong, tensors, where="here")
    with pytest.raises(
        DataError, match=r"here is not a valid Tree: at leaves\.a\.weight: no tensor named '#0'"
    ):
        _store.unpack(Tree, text, {}, where="here")


def test_the_kind_of_a_file_is_told_without_reading_it(tmp_path: Path) -> None:
    _store.save(TREE, tmp_path / "a")
    assert _store.kind(tmp_path / "a") == "Tree"
    with pytest.raises(DataError, match="does not exist"):
        _store.kind(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot read"):
        _store.kind(tmp_path)
    for content in (b"", save({}), save({}, metadata={"shapleaf": "no json"})):
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            _store.kind(tmp_path / "b")
    assert _store.kind(write(tmp_path / "c", "[1]")) == ""
