"""Crops and flips, image by image."""

from __future__ import annotations

import pytest
import torch

import shapleaf as sl
from shapleaf.retraining import Augmentation, Compose, CropFlip, Recipe, train
from shapleaf.shifts import CorruptionMix


def images(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_each_is_a_crop_of_the_padded_image_flipped_or_not() -> None:
    given = images(40)
    augment = CropFlip(pad=2, fill=(-1.0, -2.0))
    assert isinstance(augment, Augmentation)
    changed = augment(given, tuple(range(40)), 3)
    assert (changed.shape, changed.dtype) == (given.shape, given.dtype)
    found = set()
    for before, after in zip(given, changed, strict=True):
        padded = torch.empty(2, 9, 8, dtype=torch.float64)
        padded[0], padded[1] = -1, -2
        padded[:, 2:7, 2:6] = before
        crops = {
            (down, right, flip): crop.flip(-1) if flip else crop
            for down in range(5)
            for right in range(5)
            for flip in (False, True)
            for crop in [padded[:, down : down + 5, right : right + 4]]
        }
        found.add(next(where for where, crop in crops.items() if torch.allclose(crop, after)))
    assert {down for down, _, _ in found} == {right for _, right, _ in found} == set(range(5))
    assert {flip for _, _, flip in found} == {False, True}


def test_what_is_drawn_depends_on_id_and_epoch_alone() -> None:
    given, augment = images(), CropFlip(pad=2)
    whole = augment(given, (0, 1, 2, 3, 4, 5), 1)
    assert torch.equal(augment(given[[4, 1]], (4, 1), 1), whole[[4, 1]])
    assert not torch.equal(augment(given, (0, 1, 2, 3, 4, 5), 2), whole)
    assert not torch.equal(CropFlip(pad=2, seed=1)(given, (0, 1, 2, 3, 4, 5), 1), whole)


def test_without_padding_and_flip_nothing_changes() -> None:
    given = images()
    assert torch.equal(CropFlip(pad=0, flip=False)(given, (0, 1, 2, 3, 4, 5), 1), given)


def test_half_are_flipped() -> None:
    given = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).repeat(4000, 1, 1, 1)
    flipped = CropFlip(pad=0)(given, tuple(range(4000)), 0)[:, 0, 0, 0].mean()
    assert abs(flipped - 0.5) < 4 * 0.5 / 4000**0.5


def test_unusable() -> None:
    with pytest.raises(sl.DataError, match="pad=-1 must be a whole number"):
        CropFlip(pad=-1)
    with pytest.raises(sl.DataError, match=r"received \(6, 2, 5, 4\)"):
        CropFlip(fill=(0.0, 0.0, 0.0))(images(), (0, 1, 2, 3, 4, 5), 0)
    with pytest.raises(sl.DataError, match=r"received \(3, 4\)"):
        CropFlip()(torch.zeros(3, 4), (0, 1, 2), 0)


def test_several_come_in_order_and_are_told_in_full() -> None:
    given, ids = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)), tuple(range(6))
    mix, crop = sl.CorruptionMix(("contrast", "pixelate")), CropFlip(pad=2)
    assert isinstance(mix, Augmentation)
    both = Compose((mix, crop))
    assert torch.equal(both(given, ids, 1), crop(mix(given, ids, 1), ids, 1))
    assert not torch.equal(both(given, ids, 1), Compose((crop, mix))(given, ids, 1))
    assert repr(Recipe(epochs=1, augment=both)) != repr(Recipe(epochs=1, augment=Compose((mix,))))


def test_o24_a_mix_of_corruptions_trains_and_leaves_the_images_alone() -> None:
    """Robust retraining: other images in every epoch, the same ones again when it is repeated."""
    mix = CorruptionMix(("contrast", "gaussian_noise"))
    assert isinstance(mix, Augmentation)
    inputs = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = inputs.clone()
    data = inputs, torch.arange(8) % 2
    found = {}
    for augment in (None, mix, mix):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        training = train(model, data, Recipe(epochs=2, batch=4, augment=augment))
        found.setdefault(augment, []).append(training.batches)
    assert found[mix][0] == found[mix][1] != found[None][0]
    assert torch.equal(inputs, before)


def test_an_example_is_changed_alike_whatever_the_batch_and_the_epochs_between() -> None:
    images = torch.rand(40, 1, 6, 6)
    crop = CropFlip(pad=2)
    whole = crop(images, tuple(range(40)), 3)
    for epoch in range(6):
        crop(images[:2], (0, 1), epoch)
    assert torch.equal(crop(images[5:7], (5, 6), 3), whole[5:7])
