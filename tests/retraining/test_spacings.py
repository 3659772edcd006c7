"""Keep ratios and chunks by the numbers of the paper's configurations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shapleaf as sl
from shapleaf.retraining import PAPER, chunks, spacing


def test_o17_resnet20s_ratios_and_retrains() -> None:
    keeps, retrains = PAPER["cifar-resnet20"]
    assert (len(keeps), retrains) == (69, 23)
    parts = chunks(keeps, retrains)
    assert [len(part) for part in parts] == [3] * 23
    assert parts[0] == pytest.approx((0.99, 0.855, 0.85))
    assert parts[-1] == pytest.approx((0.048, 0.034, 0.02))
    removed = [round(100 * (1 - part[-1]), 1) for part in parts]
    assert removed == [
        *(15.0, 22.4, 29.2, 35.4, 41.0, 46.2, 50.8, 55.1, 59.1, 62.6, 65.9, 68.9, 71.6, 74.1, 76.3, 78.4),
        *(80.3, 82.0, 83.6, 85.0, 89.6, 93.8, 98.0),
    ]


def test_the_papers_counts() -> None:
    counts = {name: (len(keeps), retrains) for name, (keeps, retrains) in PAPER.items()}
    assert counts == {
        "cifar-resnet20": (69, 23),
        "cifar-resnet56": (60, 20),
        "cifar-resnet110": (60, 20),
        "cifar-vgg16": (60, 20),
        "cifar-densenet22": (66, 22),
        "cifar-wrn16-8": (69, 23),
        "cifar-robust": (16, 16),
        "imagenet-resnet18": (18, 18),
        "imagenet-resnet101": (16, 16),
        "voc-deeplabv3": (15, 15),
    }
    for keeps, retrains in PAPER.values():
        assert chunks(keeps, retrains)[-1][-1] == keeps[-1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("geometric", [0.8, 0.4, 0.2, 0.1]),
        ("linear", [0.8, 0.8 - 0.7 / 3, 0.8 - 1.4 / 3, 0.1]),
        # 1 / keep = 1.25, 4.1666, 7.0833, 10
        ("harmonic", [0.8, 0.24, 12 / 85, 0.1]),
        # 0.1 + 0.7 (1, 8/27, 1/27, 0)
        ("cubic", [0.8, 0.1 + 0.7 * 8 / 27, 0.1 + 0.7 / 27, 0.1]),
    ],
)
def test_spacings(kind: str, expected: list[float]) -> None:
    assert spacing(kind, 0.8, 0.1, 4) == pytest.approx(expected, abs=1e-11)
    assert spacing(kind, 0.8, 0.1, 1) == (0.8,)


@given(st.integers(1, 60), st.data())
def test_chunks_are_numpys(n: int, data: st.DataObject) -> None:
    retrains = data.draw(st.integers(1, n))
    keeps = np.linspace(0.9, 0.1, n)
    expected = [tuple(part.tolist()) for part in np.array_split(keeps, retrains)]
    assert list(chunks(keeps.tolist(), retrains)) == expected


def test_each_is_retrained_by_default() -> None:
    assert chunks([0.5, 0.2]) == ((0.5,), (0.2,))


def test_unusable_ratios() -> None:
    with pytest.raises(sl.BudgetError, match=r"0\.4 is followed by 0\.4"):
        chunks((0.5, 0.4, 0.4, 0.1))
    with pytest.raises(sl.BudgetError, match="at least one share"):
        chunks(())
    with pytest.raises(sl.BudgetError, match=r"in \(0, 1\]"):
        chunks((1.2, 0.4))
    with pytest.raises(sl.BudgetError, match="retrains=3: expected 1 to 2"):
        chunks((0.5, 0.4), 3)
    with pytest.raises(sl.BudgetError, match="kind='square': expected 'geometric'"):
        spacing("square", 0.5, 0.1, 2)  # type: ignore[arg-type]
    with pytest.raises(sl.BudgetError, match=r"shares lie in \(0, 1\]"):
        spacing("linear", 0.5, 0.0, 2)
