"""O24: training on a mix."""

from collections import Counter

import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.shifts import MIX1, MIX2, Corruption, CorruptionMix


def test_o24_frequencies_over_54000_draws():
    mix = CorruptionMix()
    drawn = [choice for epoch in range(6) for choice in mix.drawn(range(9000), epoch)]
    assert len(drawn) == 54_000
    clean = sum(severity == 0 for _, severity in drawn)
    assert abs(clean - 9000) <= 3 * 87
    counts = Counter(choice for choice in drawn if choice[1])
    assert set(counts) == {(name, severity) for name in MIX1 for severity in range(1, 6)}
    assert max(abs(count - 1000) for count in counts.values()) <= 95


def test_o24_no_draw_is_repeated_across_epochs(photos):
    mix = CorruptionMix(("gaussian_noise",))
    images = torch.full((1, 3, 32, 32), 0.5)
    severities, found = [], []
    for epoch in range(30):
        severities.append(mix.drawn((7,), epoch)[0][1])
        found.append(mix(images, (7,), epoch))
    assert set(severities) == set(range(6))
    for first in range(30):
        for second in range(first):
            both = severities[first] and severities[second]
            assert torch.equal(found[first], found[second]) == (severities[first] == severities[second] == 0)
            if both:  # not the same noise in another size, either
                pair = torch.stack([found[first].flatten(), found[second].flatten()])
                assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.1


def test_o24_h1_draws_do_not_depend_on_workers(photos):
    images, ids = photos(12), (31, 4, 15, 9, 26, 5, 35, 8, 97, 93, 2, 38)
    mix = CorruptionMix()
    whole = mix(images, ids, epoch=3)
    workers = [mix(images[rank::3], ids[rank::3], epoch=3) for rank in range(3)]
    for rank in range(3):
        assert torch.equal(workers[rank], whole[rank::3])
    assert not torch.equal(mix(images, ids, epoch=4), whole)
    assert not torch.equal(CorruptionMix(seed=1)(images, ids, epoch=3), whole)


def test_images_become_what_was_drawn(photos):
    images = photos(40)
    mix = CorruptionMix(("contrast", "pixelate"), scale="imagenet")
    found = mix(images, range(40), epoch=0)
    for place, (name, severity) in enumerate(mix.drawn(range(40), epoch=0)):
        image = images[place : place + 1]
        expected = Corruption(name, severity, "imagenet").apply(image, (place,)) if severity else image
        assert torch.equal(found[place : place + 1], expected)


def test_normalised_images_stay_normalised(photos):
    images = photos(20)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    wide = [torch.tensor(value).view(3, 1, 1) for value in (mean, std)]
    inputs = (images - wide[0]) / wide[1]
    found = CorruptionMix(mean=mean, std=std)(inputs, range(20), epoch=0)
    expected = (CorruptionMix()(images, range(20), epoch=0) - wide[0]) / wide[1]
    assert torch.allclose(found, expected, atol=1e-5)
    clean = [place for place, choice in enumerate(CorruptionMix().drawn(range(20), 0)) if choice[1] == 0]
    assert clean
    assert torch.equal(found[clean], inputs[clean])


def test_the_rest_is_held_out():
    assert {name for name, _ in CorruptionMix().drawn(range(2000), 0)}.isdisjoint(MIX2)
    assert {name for name, _ in CorruptionMix(MIX2).drawn(range(2000), 0)} == set(MIX2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ()}, "at least one"),
        ({"names": ("fog", "fog")}, "different corruptions"),
        ({"names": ("mist",)}, "no corruption is named 'mist'"),
        ({"scale": "big"}, "scale must be"),
        ({"mean": (0.5,)}, "both mean and std"),
    ],
)
def test_what_is_no_mix(options, message):
    with pytest.raises(DataError, match=message):
        CorruptionMix(**options)


def test_what_cannot_be_mixed(photos):
    with pytest.raises(DataError, match="received 2 images and 1 ids"):
        CorruptionMix()(photos(2), (0,), epoch=0)
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        CorruptionMix()(photos(2) * 4 - 2, (0, 1), epoch=0)
