"""Shifted data, and suites of distributions."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import shapleaf as sl
from shapleaf.data import batches
from shapleaf.errors import DataError
from shapleaf.integrations.datasets import load_data
from shapleaf.shifts import (
    CORRUPTIONS,
    FGSM,
    PGD,
    Corruption,
    GaussianNoise,
    UniformNoise,
    distributions,
    shifted,
)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", split="test").sample(30, seed=0)


def test_normalised_data_are_shifted_as_images(photos):
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    wide = [torch.tensor(value).view(3, 1, 1) for value in (mean, std)]
    images, labels = photos(7), torch.arange(7)
    data = [((images[part] - wide[0]) / wide[1], labels[part]) for part in (slice(0, 4), slice(4, 7))]
    found = shifted(data, Corruption("fog"), mean=mean, std=std)
    expected = (Corruption("fog").apply(images, range(7)) - wide[0]) / wide[1]
    for _ in range(2):  # as often as one likes
        seen = list(found)
        assert [(batch.first, batch.examples) for batch in seen] == [(0, 4), (4, 3)]
        assert torch.allclose(torch.cat([batch.inputs for batch in seen]), expected, atol=1e-6)
        assert torch.cat([batch.target for batch in seen]).equal(labels)
        assert seen[0].inputs.dtype == torch.float32


def test_a_sample_is_shifted_as_the_whole(digits):
    whole = load_data("digits", split="test")
    shift = GaussianNoise(0.2)
    every = torch.cat([batch.inputs for batch in shifted(whole, shift)])
    some = list(shifted(digits, shift, batch_size=7))
    assert [batch.examples for batch in some] == [7, 7, 7, 7, 2]
    assert torch.equal(torch.cat([batch.inputs for batch in some]), every[digits.ids])
    assert torch.cat([batch.target for batch in some]).equal(digits.labels)


def test_one_batch_that_holds_all_is_cut(photos):
    found = shifted((photos(5), torch.arange(5)), UniformNoise(0.1), batch_size=2)
    assert [batch.examples for batch in batches(found)] == [2, 2, 1]
    assert repr(found).startswith("Shifted(uniform noise 0.1 of ")


def test_unshifted_data_are_untouched(digits):
    images, labels = digits.tensors()
    list(shifted(digits, Corruption("contrast")))
    assert torch.equal(digits.tensors()[0], images)
    assert torch.equal(digits.labels, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: shifted(data, "fog"), "a shift has a name, a family and apply"),
        (lambda data: shifted(data, Corruption("fog"), batch_size=0), "batch_size must be at least 1"),
        (lambda data: shifted(data, Corruption("fog"), mean=(0.5,)), "both mean and std"),
        (lambda data: list(shifted(data, Corruption("fog"), mean=(0.5,) * 4, std=(1,) * 4)), "of 4 channels"),
        (lambda data: list(shifted((data[0] * 3, data[1]), Corruption("fog"))), "pass the mean and std"),
        (lambda data: list(shifted([], Corruption("fog"))), "the data are empty"),
        (lambda data: list(shifted([data[0]], Corruption("fog"))), "has no target"),
        (
            lambda data: list(shifted((data[0].flatten(1), data[1]), Corruption("fog"))),
            "one floating-point tensor",
        ),
    ],
)
def test_what_cannot_be_shifted(make, message, photos):
    with pytest.raises(DataError, match=message):
        make((photos(2), torch.arange(2)))


def test_a_suite_begins_with_the_clean_data(digits):
    suite = distributions(
        digits,
        names=["fog", "impulse_noise"],
        severities=(1, 5),
        noise=[GaussianNoise(0.1)],
        attacks=[FGSM(8 / 255), PGD(8 / 255, steps=2)],
    )
    assert [(one.name, one.family, one.nominal) for one in suite] == [
        ("clean", "", True),
        ("fog 1", "weather", False),
        ("fog 5", "weather", False),
        ("impulse_noise 1", "noise", False),
        ("impulse_noise 5", "noise", False),
        ("Gaussian noise 0.1", "noise", False),
        ("FGSM 8/255", "attack", False),
        ("PGD-2 8/255", "attack", False),
    ]
    for one in (suite[0], suite[6]):
        assert torch.equal(torch.cat([batch.inputs for batch in batches(one.data)]), digits.tensors()[0])
    for one in suite:
        assert torch.cat([batch.target for batch in batches(one.data)]).equal(digits.labels)
    assert [one.attack is None for one in suite] == [True] * 6 + [False] * 2
    assert all((one.attack.mean, one.attack.std) == (digits.mean, digits.std) for one in suite[6:])


def test_attacks_of_a_suite_fit_its_data(digits):
    attack = distributions(digits, names=(), attacks=[FGSM(0.1)])[1].attack
    batch = next(batches(digits.batches()))
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    moved = (attack.perturb(model, batch).inputs - batch.inputs).abs().max() * digits.std[0]
    assert float(moved) == pytest.approx(0.1, abs=1e-5)
    own = FGSM(0.1, (0.0,), (1.0,))
    assert distributions(digits, names=(), attacks=[own])[1].attack is own


def test_the_scale_goes_by_the_size(digits):
    small = distributions(digits, names=("fog",))[1].data.shift
    assert small == Corruption("fog", 3, "cifar")
    large = load_data("digits", split="test", image_size=65)
    assert distributions(large, names=("fog",), seed=3)[1].data.shift == Corruption("fog", 3, "imagenet", 3)
    assert distributions(large, names=("fog",), scale="cifar")[1].data.shift.scale == "cifar"


def test_all_names_by_default():
    """But saturation is for colours alone."""
    gray = load_data("digits", split="test", mean=[0.0], std=[1.0])
    coloured = replace(gray, shape=(3, 16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    names = ["clean", *(f"{name} 3" for name in CORRUPTIONS)]
    assert [one.name for one in distributions(coloured)] == names
    assert [one.name for one in distributions(gray)] == [one for one in names if one != "saturate 3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["mist"]}, "no corruption is named 'mist'"),
        ({"severities": [0]}, "severity must be 1, 2, 3, 4 or 5"),
        ({"scale": "big"}, "scale must be 'cifar' or 'imagenet'"),
        ({"names": ["fog", "fog"]}, "two distributions are named fog 3"),
        (
            {"names": [], "noise": [GaussianNoise(0.1), GaussianNoise(0.1, seed=1)]},
            "are named Gaussian noise 0.1",
        ),
        ({"noise": ["fog"]}, "a shift has a name"),
        ({"attacks": ["fgsm"]}, "an attack has a name and perturb"),
    ],
)
def test_what_is_no_suite(options, message, digits):
    with pytest.raises(DataError, match=message):
        distributions(digits, **options)


def test_a_suite_needs_images_that_know_how_they_are_normalised(photos):
    with pytest.raises(DataError, match=r"as load_data gives; received tuple. .* shifted\("):
        distributions((photos(2), torch.arange(2)))


def test_the_public_names():
    assert sl.distributions is distributions
    assert sl.shifted is shifted
    assert (sl.FGSM, sl.Corruption, sl.GaussianNoise) == (FGSM, Corruption, GaussianNoise)
    assert sl.CORRUPTIONS == CORRUPTIONS
