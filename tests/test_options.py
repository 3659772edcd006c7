"""The command line's words become the library's objects, or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shapleaf as sl
from shapleaf import _options
from shapleaf.evaluation.pruning_curves import RATES
from shapleaf.integrations.datasets import load_data


@pytest.mark.parametrize(
    ("words", "budget"),
    [
        (("macs", "0.5", None), sl.Macs(keep=0.5)),
        (("params", None, "30%"), sl.Params(remove=0.3)),
        (("units", "12", None), sl.Units(keep=12)),
    ],
)
def test_budgets(words: tuple[str, str | None, str | None], budget: sl.Macs) -> None:
    assert _options.budget(*words) == budget


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("flops", "0.5", None), "--budget 'flops': expected macs, params, units or latency"),
        (("latency", "0.5", None), "--budget latency and --table"),
        (("macs", "0.5", None, Path("table")), "--budget latency and --table"),
        (("macs", None, None), "exactly one of --keep and --remove"),
        (("macs", "0.5", "0.5"), "exactly one of --keep and --remove"),
        (("macs", "half", None), "'half' is no amount"),
        (("macs", "150%", None), "between 0 and 1"),
    ],
)
def test_bad_budgets(words: tuple[Any, ...], message: str) -> None:
    with pytest.raises(sl.BudgetError, match=message):
        _options.budget(*words)


def test_criteria() -> None:
    assert _options.criterion("taylor-signed") == sl.Taylor(signed=True)
    assert _options.criterion("pfp") == sl.PFP()
    assert _options.criterion("thinet") == sl.ThiNet()
    assert _options.criterion("shapleaf.criteria:WeightNorm") == sl.WeightNorm()
    with pytest.raises(sl.CriterionError, match="no criterion is named 'magic'; there are shapley, "):
        _options.criterion("magic")
    with pytest.raises(sl.CriterionError, match="shapleaf:Zero is no criterion"):
        _options.criterion("shapleaf:Zero")
    with pytest.raises(sl.CriterionError, match="shapleaf.criteria:Needs cannot be made without arguments"):
        _options.criterion("shapleaf.criteria:Needs")


def test_sampling_options_make_the_estimator_adaptive() -> None:
    def made(criterion: sl.Criterion = sl.Shapley(), **given: Any) -> Any:  # noqa: B008 - a value
        names = ("confidence", "evaluations", "seconds", "journal", "memory")
        return _options.sampling(criterion, *(given.get(name) for name in names))

    assert made() == sl.Shapley()
    assert made(memory="3MiB") == sl.Shapley(memory=3 * 2**20)
    assert made(sl.LeaveOneOut(), memory="5000").memory == 5000
    assert made(confidence=0.9, seconds=5.0).estimator == sl.Adaptive(confidence=0.9, seconds=5.0)
    # A limit alone is spent in full.
    assert made(evaluations=500).estimator == sl.Adaptive(confidence=1, evaluations=500)
    kept = made(sl.Shapley(sl.Permutation()), journal=Path("kept")).estimator
    assert kept == sl.Adaptive(sl.Permutation(), confidence=1, journal="kept")
    with pytest.raises(sl.CriterionError, match="--seconds, --journal need a criterion that draws"):
        made(sl.Taylor(), seconds=1.0, journal=Path("kept"))
    with pytest.raises(sl.CriterionError, match="--memory bounds criteria that take units away"):
        made(sl.Taylor(), memory="1GiB")
    with pytest.raises(sl.CriterionError, match="--memory '1GB': expected bytes"):
        made(memory="1GB")


def test_strategies() -> None:
    assert _options.strategy("uniform") == sl.Uniform()
    assert _options.strategy("error-level") == sl.ErrorLevel()
    with pytest.raises(
        sl.BudgetError, match="--strategy 'best': expected tradeoff, uniform, global, error-level"
    ):
        _options.strategy("best")


def test_shapes_and_statistics() -> None:
    assert _options.shape("3,32,16") == (3, 32, 16)
    with pytest.raises(sl.DataError, match="--shape '3x32': expected numbers"):
        _options.shape("3x32")
    data = _options.images("digits", "test", None, "0.5/0.25")
    assert (data.mean, data.std) == ((0.5,), (0.25,))
    for text in ("0.5", "a/b", "1/2/3"):
        with pytest.raises(sl.DataError, match="--normalise"):
            _options.images("digits", "test", None, text)
    with pytest.raises(sl.DataError, match="--split 'validation': expected train or test"):
        _options.images("digits", "validation", None, None)


@pytest.mark.parametrize(
    ("name", "criterion"),
    [
        ("saliency", sl.Saliency(sl.Logit())),
        ("gradient-activation", sl.GradientActivation(signed=True, target=sl.Logit())),
        ("integrated-gradients", sl.IntegratedGradients()),
        ("occlusion", sl.Occlusion()),
        ("deeplift", sl.DeepLIFT()),
        ("conductance", sl.Conductance()),
    ],
)
def test_the_gradient_family_by_name(name: str, criterion: sl.Criterion) -> None:
    assert _options.criterion(name) == criterion


def test_several_criteria_by_name() -> None:
    found = _options.criteria(["taylor", "steps=integrated-gradients"])
    assert found == {"taylor": sl.Taylor(), "steps": sl.IntegratedGradients()}
    assert list(_options.criteria(None))[:2] == ["random", "weight-norm"]
    with pytest.raises(sl.CriterionError, match="--criterion a=apoz: there is one named a already"):
        _options.criteria(["a=taylor", "a=apoz"])


def test_memory_bounds_whatever_takes_units_away() -> None:
    bounded = _options.sampling(sl.IntegratedGradients(), None, None, None, None, "1MiB")
    assert bounded == sl.IntegratedGradients(memory=2**20)


def test_relevance_by_preset_and_file(tmp_path: Path) -> None:
    assert _options.criterion("lrp") == sl.LRP()
    assert _options.criterion("lrp:cp-lrp") == sl.LRP.preset("cp-lrp")
    sl.LRP(sl.ZPlus(), absolute="token").save(tmp_path / "mine.json")
    assert _options.criterion(f"lrp:{tmp_path / 'mine.json'}") == sl.LRP(sl.ZPlus(), absolute="token")
    with pytest.raises(sl.CriterionError, match="no preset and no file is named 'mine.json'"):
        _options.criterion("lrp:mine.json")


def test_rates_are_even_from_none_removed() -> None:
    assert _options.rates(20) == pytest.approx(RATES)
    assert _options.rates(4) == [0, 0.25, 0.5, 0.75]
    assert _options.rates(0) == []
    with pytest.raises(sl.CriterionError, match="--rates -3: expected how many, or 0 for no curves"):
        _options.rates(-3)


def test_samples_are_by_default_fewer_than_all() -> None:
    assert [_options.samples(None, n) for n in (31, 30, 10)] == [[10, 30], [10], []]
    assert _options.samples([0], 100) == []
    assert _options.samples([50], 20) == [50]  # which is refused when it is known how many there are


def test_depths_of_bands() -> None:
    assert _options.depths("0.3,0.7") == (0.3, 0.7)
    assert _options.depths(".5") == (0.5,)
    assert _options.depths("vgg") == "vgg"
    with pytest.raises(sl.CriterionError, match="--bands '0.3;0.7': expected depths, such as 0.3,0.7"):
        _options.depths("0.3;0.7")


def test_parts_of_a_tuning_are_apart_and_hold_every_class() -> None:
    images = load_data("digits", split="test")
    reference, selection, test = _options.tuning_parts(images, 3, 50, seed=1, test=100)
    assert reference.labels.bincount().tolist() == [3] * 10
    assert (len(selection), len(test)) == (50, 100)
    assert len({*reference.ids.tolist(), *selection.ids.tolist(), *test.ids.tolist()}) == 180
    again = _options.tuning_parts(images, 3, 50, seed=1, test=None)
    assert again[0].ids.tolist() == reference.ids.tolist()
    assert len(again[2]) == 1000 - 80
