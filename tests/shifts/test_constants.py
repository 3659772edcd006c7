"""The names and numbers of the corruptions."""

import pytest

from shapleaf.shifts import CORRUPTIONS, MIX1, MIX2
from shapleaf.shifts.constants import CONSTANTS, FAMILIES


def test_o24_the_mixes_are_disjoint_and_together_all():
    assert (len(CORRUPTIONS), len(MIX1), len(MIX2)) == (19, 9, 10)
    assert set(MIX1).isdisjoint(MIX2)
    assert set(MIX1) | set(MIX2) == set(CORRUPTIONS)
    assert set(MIX2) == {
        *("brightness", "defocus_blur", "fog", "frost", "gaussian_noise", "glass_blur"),
        *("jpeg_compression", "saturate", "spatter", "speckle_noise"),
    }


def test_families_have_the_sizes_of_the_paper():
    sizes = {family: [*FAMILIES.values()].count(family) for family in FAMILIES.values()}
    assert sizes == {"noise": 3, "blur": 4, "weather": 4, "digital": 4, "extra": 4}


@pytest.mark.parametrize("scale", ["cifar", "imagenet"])
def test_every_corruption_has_five_severities(scale):
    assert set(CONSTANTS[scale]) == set(CORRUPTIONS)
    for name, values in CONSTANTS[scale].items():
        assert len(values) == 5, name
        widths = {len(value) if isinstance(value, tuple) else 0 for value in values}
        assert len(widths) == 1, name


@pytest.mark.parametrize(
    ("name", "cifar", "imagenet"),
    [
        ("gaussian_noise", 0.08, 0.18),
        ("jpeg_compression", 58, 15),
        ("contrast", 0.4, 0.2),
        ("gaussian_blur", 0.7, 3),
        ("defocus_blur", (0.5, 0.6), (6, 0.5)),
    ],
)
def test_severity_3_of_the_two_scales(name, cifar, imagenet):
    assert CONSTANTS["cifar"][name][2] == cifar
    assert CONSTANTS["imagenet"][name][2] == imagenet
