"""Value equality, printing and storage that all records share."""

import dataclasses
import html.parser
import json

import numpy as np
import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.records import Blocked, Cost, Graph, Measurement, Plan, Receipt, Report, Scores
from shapleaf.records._base import Part, Record


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Box(Part):
    content: object


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1),
        (1, 1.0),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        (np.float64(0.5), 0.5),
        ("a", "a"),
        (None, None),
        (True, True),
        ((1, (2.0, float("nan"))), (1, (2.0, float("nan")))),
        ([1, [float("nan")]], [1, [float("nan")]]),
        ({"a": torch.ones(2)}, {"a": torch.ones(2)}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])),
        (torch.tensor([]), torch.tensor([])),
        (Box(content=torch.ones(1)), Box(content=torch.ones(1))),
    ],
)
def test_equal_values_are_equal(a: object, b: object) -> None:
    assert Box(content=a) == Box(content=b)
    assert Box(content=b) == Box(content=a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 2),
        (1, True),
        (1, "1"),
        (0.0, None),
        (float("nan"), 0.0),
        ((1, 2), (1,)),
        ((1,), [1]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2), torch.ones(1, 2)),
        (torch.ones(2), torch.tensor([1.0, float("nan")])),
        (torch.ones(2), (1.0, 1.0)),
        (torch.zeros(0), torch.zeros(1)),
    ],
)
def test_other_values_are_not(a: object, b: object) -> None:
    assert Box(content=a) != Box(content=b)
    assert Box(content=b) != Box(content=a)


def test_classes_are_compared_too() -> None:
    a, b = Blocked(tensor="w", dim=0, size=1, reason=""), Cost(units=1, params=1, macs=1)
    assert a != b
    assert a != "w"


dumps = json.dumps
RECORDS = ("graph", "scores", "plan", "receipt", "report", "latency")


@pytest.fixture(params=RECORDS)
def record(request: pytest.FixtureRequest) -> Record:
    found: Record = request.getfixturevalue(request.param)
    return found


def test_records_are_frozen_and_have_no_room_for_more(record: Record) -> None:
    first = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, first, None)
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(record, "note", 1)


def test_records_are_unhashable(record: Record) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(record)


def test_a_record_equals_its_copy_and_no_other(record: Record) -> None:
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}  # type: ignore[arg-type]
    assert record == type(record)(**fields)
    assert record != object()


def test_save_and_load_round_trip(record: Record, tmp_path) -> None:
    path = tmp_path / "deeper" / "record.safetensors"
    record.save(path)
    loaded = type(record).load(str(path))
    assert loaded == record
    assert str(loaded) == str(record)
    assert [file.name for file in path.parent.iterdir()] == ["record.safetensors"]


def test_a_field_that_no_record_has_is_refused(record: Record, tmp_path, monkeypatch) -> None:
    """A misspelt or newer field must not be dropped in silence."""
    monkeypatch.setattr(
        json, "dumps", lambda value: dumps({**value, "record": {**value["record"], "kept": 1}})
    )
    record.save(tmp_path / "record")
    with pytest.raises(DataError, match="at kept: Unexpected keyword argument"):
        type(record).load(tmp_path / "record")


def test_json_is_plain(record: Record) -> None:
    text = json.dumps(record.to_json())
    assert set(json.loads(text)) == {f.name for f in dataclasses.fields(record)}  # type: ignore[arg-type]


def test_json_holds_tensors_as_lists(scores: Scores) -> None:
    assert scores.to_json()["values"]["fc"] == [1.0, 2.0, 3.0]


class Cells(html.parser.HTMLParser):
    """The text of every element, by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: dict[str, list[str]] = {}
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)
            self.found.setdefault(tag, [])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.found[self.open[-1]].append(data)


def test_html_shows_the_same_cells_as_the_text(record: Record) -> None:
    cells = Cells(record._repr_html_())
    text = str(record)
    assert cells.found["caption"] == [text.splitlines()[0]]
    assert cells.found["th"] == record.table()["header"]
    for cell in [*cells.found["td"], *cells.found.get("p", [])]:
        assert cell in text


def test_html_escapes_what_models_and_files_bring(scores: Scores) -> None:
    evil = dataclasses.replace(scores, criterion="<script>alert(1)</script>")
    assert "<script>" not in evil._repr_html_()
    assert "&lt;script&gt;" in evil._repr_html_()


def test_a_report_without_predecessors_round_trips(tmp_path) -> None:
    report = Report(title="bare", rows=(Measurement(metric="loss", value=1, better="lower"),))
    report.save(tmp_path / "r")
    assert Report.load(tmp_path / "r") == report


def test_every_predecessor_is_in_one_file(report: Report, graph: Graph, plan: Plan, tmp_path) -> None:
    report.save(tmp_path / "report")
    loaded = Report.load(tmp_path / "report")
    assert isinstance(loaded.receipt, Receipt)
    assert loaded.receipt.plan == plan
    assert loaded.receipt.plan.graph == graph
    assert loaded.scores is not None
    assert loaded.scores.graph.fingerprint == graph.fingerprint
