"""The page: what it says, that it says it safely, and how a browser shows it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.records import Cost, Graph, Group, Measurement, Plan, Receipt, Report, Scores
from shapleaf.reporting import render, write
from shapleaf.reporting.html import change, figure, percent

SPACE = "\N{NO-BREAK SPACE}"
PAGES = ["vgg", "minimal", "resnet", "hostile", "lost", "beside", "lost_hostile", "beside_hostile"]
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and the text under each section, as a reader gets them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.section = "head"
        self.texts: dict[str, list[str]] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.texts.setdefault(self.section, []).append(data.strip())

    def text(self, section: str) -> str:
        return " ".join(self.texts[section]).replace(SPACE, " ")

    def all(self, tag: str, cls: str = "") -> list[dict[str, str | None]]:
        return [
            a for t, a in self.elements if t == tag and (not cls or cls in (a.get("class") or "").split())
        ]


def rows(*measurements: Measurement) -> Report:
    return Report(title="t", rows=measurements)


# ── what it says ─────────────────────────────────────────────────────────────────────────────


def test_the_first_sentence_says_what_was_saved_and_what_it_cost(vgg: Report) -> None:
    head = Page(render(vgg)).text("head")
    assert "43 % fewer MACs and 31 % fewer parameters; accuracy 98.1 % → 97.4 %." in head
    assert "A batch takes 171 ms instead of 334 ms, 1.95 times as fast." in head
    assert "98.4 % of the predictions are the same as before." in head
    assert "1,663 of 4,224 units stay; units were removed from all 13 groups." in head


@pytest.mark.parametrize(
    ("after", "said"),
    [(100.0, "The same MACs."), (150.0, "50 % more MACs."), (99.7, "0.3 % fewer MACs."),
     (0.0, "100 % fewer MACs."), (0.3, "99.7 % fewer MACs."), (99.999, "Under 0.01 % fewer MACs."),
     (0.001, "Over 99.99 % fewer MACs."), (1300.0, "1,200 % more MACs.")],
)  # fmt: skip
def test_the_sentence_for_any_change(after: float, said: str) -> None:
    page = Page(render(rows(Measurement(metric="MACs", value=after, reference=100.0, better="lower"))))
    assert said in page.text("head")


def test_a_slower_model_is_called_slower() -> None:
    row = Measurement(metric="latency (wall)", value=30.0, reference=20.0, unit="ms", better="lower")
    assert "30 ms instead of 20 ms, 1.5 times as long." in Page(render(rows(row))).text("head")


def test_numbers_before_and_after_with_intervals_and_changes(vgg: Report) -> None:
    said = Page(render(vgg)).text("numbers")
    assert "98.12 % 97.83 to 98.37 97.43 % 97.10 to 97.73 −0.69 points worse" in said
    assert "0.0874 0.0821 to 0.0927 0.0912 0.0861 to 0.0963 +4.3 % worse, intervals overlap" in said
    assert "Agreement share of examples predicted as before – 98.40 % 98.13 to 98.63 –" in said
    assert "Parameters 14.73 M 10.16 M −31.0 % better" in said
    assert "ms per batch of 100 333.0 331.7 to 335.2 170.4 169.2 to 171.9 −48.8 % better" in said


@pytest.mark.parametrize(
    ("better", "after", "verdict"),
    [("higher", 2.0, "better"), ("higher", 0.5, "worse"), ("lower", 2.0, "worse"), ("lower", 0.5, "better"),
     ("lower", 1.0, "same")],
)  # fmt: skip
def test_the_verdict_follows_the_direction_that_is_better(better: Any, after: float, verdict: str) -> None:
    seen = change(Measurement(metric="m", value=after, reference=1.0, better=better))
    assert seen is not None
    assert seen.verdict == verdict


def test_changes_of_any_size() -> None:
    def text(before: float, after: float, unit: str = "") -> str:
        seen = change(Measurement(metric="m", value=after, reference=before, unit=unit))
        return "none" if seen is None else seen.text.replace(SPACE, " ")

    assert text(50, 48.5, "%") == "−1.5 points"
    assert text(1, 31) == "+3,000 %"
    assert text(0, 0.25) == "+0.25"
    assert text(-2, -1) == "+50.0 %"
    assert text(1, 1) == "no change"
    assert text(math.nan, 1) == text(1, math.inf) == "none"


def test_figures() -> None:
    cases = {0: "0", 12: "12", 9999: "9,999", 10500: "10.5 k", 1234567: "1.235 M", 2.5e12: "2.5 T",
             0.123456: "0.1235", -3: "−3", 1e-7: "1e−07", math.nan: "NaN",
             -math.inf: "−infinite"}  # fmt: skip
    assert {value: figure(value).replace(SPACE, " ") for value in cases} == cases
    assert percent(0.5) == f"50{SPACE}%"
    assert percent(0.995) == f"99.5{SPACE}%"


def test_a_broken_figure_is_loud() -> None:
    page = Page(render(rows(Measurement(metric="loss", value=math.nan, reference=0.5, better="lower"))))
    assert "Loss 0.500 → NaN." in page.text("head")
    assert page.all("td", "worse")
    assert "NaN" in page.text("numbers")


def test_units_kept_per_group(vgg: Report) -> None:
    page = Page(render(vgg))
    assert "features.0 61 of 64 features.3 57 of 64" in page.text("units")
    assert "features.34 77 of 512 features.37 77 of 512 features.40 77 of 512" in page.text("units")
    widths = [a["style"] for a in page.all("i") if a.get("style")]
    assert len(widths) == 13
    assert widths[0] == "width:95.31%"
    assert widths[-1] == "width:15.04%"


def test_every_score_chart_is_labelled_and_marks_what_was_removed(vgg: Report) -> None:
    page = Page(render(vgg))
    figures = [a for a in page.all("svg") if a.get("role") == "img"]
    assert len(figures) == 13
    assert all(a["aria-labelledby"] == f"t{i} d{i}" for i, a in enumerate(figures, 1))
    said = page.text("scores")
    assert "Scores by Shapley(Permutation(samples=8)) over 1,000 examples" in said
    assert said.count("score, square-root scale") == said.count("units, lowest score first") == 13
    assert "features.40 77 of 512 kept, 96 drawn" in said
    assert "Of larger groups some units are drawn" in said
    assert "one standard error either way" in said
    assert "below zero" in said
    crosses = [a["d"] or "" for a in page.all("path", "cross") if not a.get("style")]
    assert len(crosses) == 13
    assert crosses[0].count("M") == 3
    ends = [a["d"] or "" for a in page.all("path", "bar") if not a.get("style")]
    assert len(ends) == 26


def test_what_was_blocked_and_why(vgg: Report) -> None:
    said = Page(render(vgg)).text("limits")
    assert "no rule for aten.fft_rfft attend.0.weight, axis 0 (512), attend.1.weight" in said
    assert "attend.5.weight, axis 0 (512) and 5 more 11 output of the model classifier.6.weight" in said
    assert "equal numbers of units features.34, features.37, features.40" in said
    assert "features.44 is never called in eval mode" in said


def test_surgery_and_origins(vgg: Report) -> None:
    page = Page(render(vgg))
    said = page.text("surgery")
    assert "Compensation: LeastSquares(ridge=0.001)." in said
    assert "Biases added: features.3.bias (50)." in said
    assert "3.1 \N{MULTIPLICATION SIGN} 10⁻⁷ of the largest output" in said
    assert "features.0 out_channels 64 → 61" in said
    made = page.text("origins")
    assert "shapleaf slim torchvision:vgg16_bn --data cifar10 --macs-keep 0.57" in made
    for fact in ("criterion Shapley(Permutation(samples=8))", "aggregate MeanPlusStd(2)", "seed 0",
                 "budget Macs(keep=0.57)", "examples 10,000", "torch 2.13.0"):  # fmt: skip
        assert fact in made
    assert "command" not in made


def test_many_groups_fold_and_say_how_many(resnet: Report) -> None:
    page = Page(render(resnet))
    assert len([a for a in page.all("svg") if a.get("role") == "img"]) == 54
    assert "The other 42 groups" in page.text("scores")
    assert "fc1 614 of 4,096 kept, 55 drawn" in page.text("scores")
    assert "not compared with the masked one" in page.text("surgery")


def test_rows_alone_make_a_page_with_one_section(minimal: Report) -> None:
    page = Page(render(minimal))
    assert [a["id"] for a in page.all("section")] == ["numbers"]
    assert not page.all("nav")
    assert "Accuracy share of examples predicted right 91.25 %" in page.text("numbers")
    assert "intervals" not in page.text("numbers")


def test_an_empty_report_says_so() -> None:
    page = Page(render(rows()))
    assert "Nothing was measured." in page.text("head")
    assert not page.all("section")


def small(exact: bool = True, reason: str = "") -> Graph:
    group = Group(name="fc", size=3, slices=(), sites=(), exact=exact, reason=reason)
    return Graph(groups=(group,), tensors=())


def test_scores_without_a_plan() -> None:
    scores = Scores(graph=small(), values={"fc": torch.tensor([1.0, 2.0, 3.0])}, criterion="WeightNorm()")
    page = Page(render(Report(title="t", rows=(), scores=scores)))
    assert "kept and removed units look alike" in page.text("scores")
    assert "fc 3 units" in page.text("scores")
    assert "square" not in page.text("scores")
    assert "standard error" not in page.text("scores")


def test_scores_per_example_and_broken_scores() -> None:
    values = {"fc": torch.tensor([[1.0, 2.0, torch.nan], [3.0, 2.0, 1.0]])}
    page = Page(render(Report(title="t", rows=(), scores=Scores(graph=small(), values=values))))
    assert "averaged over examples for this page" in page.text("scores")
    assert "fc 3 units, 1 without a finite score" in page.text("scores")


def test_a_group_that_is_not_exact_is_listed_with_its_reason() -> None:
    graph = small(exact=False, reason="LayerNorm over the units")
    cost = Cost(units=3, params=9, macs=9)
    plan = Plan(graph=graph, keep={"fc": (0, 1, 2)}, before=cost, after=cost)
    page = Page(render(Report(title="t", rows=(), receipt=Receipt(plan=plan))))
    assert "LayerNorm over the units fc 1" in page.text("limits")
    assert "3 of 3 units stay." in page.text("head")


# ── that it says it safely ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PAGES)
def test_one_file_below_300_kb_that_loads_nothing(name: str, request: pytest.FixtureRequest) -> None:
    text = render(request.getfixturevalue(name))
    page = Page(text)
    assert not page.open
    assert len(text.encode()) < 300_000
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("href", "src", "xlink:href", "action"):
            value = attributes.get(key) or "#"
            assert value.startswith("#") or (tag, value) == ("link", "data:,")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for a in page.all("a")} <= set(ids)


def test_a_long_page_is_cut_until_it_is_below_300_kb(resnet: Report, lost: Report) -> None:
    both = replace(resnet, robustness=lost.robustness)
    page = Page(render(both))
    assert [a["id"] for a in page.all("section")][:2] == ["verdict", "curves"]
    assert "numbers" in page.texts
    assert "Of 54 groups, the 30 that lose the most units are shown." in page.text("scores")
    assert "of 20 distributions, the 12 that allow the least" in page.text("curves").lower()
    assert len(render(both).encode()) < 300_000


def test_hostile_text_is_shown_as_text(hostile: Report) -> None:
    page = Page(render(hostile))
    for section in page.texts:
        assert "<script>alert(1)</script>" in page.text(section), section
        assert "{{ 7 * 7 }}" in page.text(section)
    assert "Of 300 groups, the 60 that lose the most units are shown." in page.text("scores")
    assert "Of 300 groups, the 120 that lose the most units are shown." in page.text("units")
    assert "126 other reasons" in page.text("limits")
    assert "and 376 more" in page.text("limits")
    assert "and 940 more modules" in page.text("surgery")


def test_write_is_whole_or_not_at_all(minimal: Report, tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.html"
    write(minimal, target)
    assert target.read_text(encoding="utf-8") == render(minimal) == minimal.to_html()
    blocker = tmp_path / "file"
    blocker.write_text("here first")
    with pytest.raises(DataError, match="cannot write"):
        write(minimal, blocker / "report.html")
    assert blocker.read_text() == "here first"


def test_a_saved_report_makes_the_same_page(vgg: Report, tmp_path: Path) -> None:
    vgg.save(tmp_path / "report")
    assert render(Report.load(tmp_path / "report")) == render(vgg)


def test_the_terminal_table(vgg: Report) -> None:
    assert str(Report(title=vgg.title, rows=vgg.rows, settings={"examples": "10,000"})) == (
        "VGG16 on CIFAR-10\n"
        "metric          unit                   reference        value  interval          change\n"
        "──────────────  ───────────────────  ───────────  ───────────  ────────────────  ────────────\n"
        "accuracy        %                          98.12        97.43  97.1 to 97.73     -0.69 points\n"
        "loss                                      0.0874       0.0912  0.0861 to 0.0963  x 1.04\n"
        "agreement       %                              -         98.4  98.13 to 98.63    -\n"
        "params                                14,728,266   10,156,000  -                 x 0.69\n"
        "MACs            MAC                  313,733,120  178,900,512  -                 x 0.57\n"
        "latency (wall)  ms per batch of 100        334.1        171.2  168 to 176.9      x 0.512\n"
        "latency (CPU)   ms per batch of 100          333        170.4  169.2 to 171.9    x 0.512\n"
        "examples=10,000"
    )


# ── how a browser shows it ───────────────────────────────────────────────────────────────────

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

OVERLAPS = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  const out = boxes.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 ||
                                      b.top < frame.top - 1 || b.bottom > frame.bottom + 1);
  const hit = (a, b) => a.left < b.right - .5 && b.left < a.right - .5 &&
                        a.top < b.bottom - 2 && b.top < a.bottom - 2;
  const pairs = boxes.flatMap(([s, a], i) =>
    boxes.slice(i + 1).filter(([, b]) => hit(a, b)).map(([t]) => s + ' on ' + t));
  return [...out.map(([t]) => t + ' is cut'), ...pairs];
})"""

CONTRAST = """() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => rgb(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if ((rgb(c)[3] ?? 1) > 0) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const worst = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (e.closest('title, desc')) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(e.namespaceURI.endsWith('svg') ? style.fill : style.color), light(behind(e))];
    worst.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.textContent.trim().slice(0, 40)]);
  }
  return worst.sort((a, b) => a[0] - b[0])[0];
}"""

HIDDEN = """() => [...document.querySelectorAll('main > section, section h2, figure, .row, dl div')]
  .map(e => [e, e.getBoundingClientRect()])
  .filter(([, b]) => b.width < 1 || b.height < 1 || b.right > innerWidth + 1)
  .map(([e]) => e.outerHTML.slice(0, 80))"""

SMALLEST = """() => Math.min(...[...document.querySelectorAll('figure svg text')]
  .map(t => 11 * t.ownerSVGElement.getBoundingClientRect().width / 320))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    with sync_playwright() as play:
        window = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield window
        window.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"), [(360, "light"), (390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")]
)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_a_browser(
    name: str, width: int, scheme: Any, browser: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    write(request.getfixturevalue(name), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")

    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "report.html").as_uri()]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(HIDDEN) == []
    assert page.evaluate(OVERLAPS) == []
    ratio, words = page.evaluate(CONTRAST)
    assert ratio >= 4.5, f"{words!r} has a contrast of {ratio:.2f}"
    if name != "minimal":
        assert page.evaluate(SMALLEST) >= 10
    page.close()


@pytest.mark.browser
def test_dark_is_dark_and_light_is_light(browser: Any, minimal: Report, tmp_path: Path) -> None:
    write(minimal, tmp_path / "report.html")
    papers = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto((tmp_path / "report.html").as_uri())
        papers[scheme] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        page.close()
    assert papers == {"light": "rgb(252, 252, 250)", "dark": "rgb(19, 23, 21)"}
