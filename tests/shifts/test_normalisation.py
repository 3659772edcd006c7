"""Between inputs and images."""

import pytest
import torch

from shapleaf.data import Batch
from shapleaf.errors import DataError
from shapleaf.shifts.normalisation import Normalisation, changed

CIFAR = Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def test_there_and_back():
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    inputs = CIFAR.redo(images)
    assert inputs[1, 2, 0, 0].item() == pytest.approx((images[1, 2, 0, 0].item() - 0.4465) / 0.2616)
    assert torch.allclose(CIFAR.undo(inputs), images)
    assert torch.equal(Normalisation().redo(images), images)
    one = Normalisation((0.5,), (0.1,)).redo(images)
    assert torch.allclose(one, (images - 0.5) / 0.1)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.5,), None, "both mean and std"),
        (None, (0.5,), "both mean and std"),
        ((0.5,), (0.5, 0.5), "a finite number for each channel"),
        ((0.5,), (0.0,), "std above 0"),
        ((float("nan"),), (1.0,), "finite"),
        ((), (), "for each channel"),
    ],
)
def test_what_is_no_normalisation(mean, std, message):
    with pytest.raises(DataError, match=message):
        Normalisation(mean, std)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 3, 4)])
def test_images_must_fit(shape):
    with pytest.raises(DataError, match="mean and std are of 3 channels, but the images have shape"):
        CIFAR.undo(torch.zeros(shape))


def test_only_the_images_of_a_batch_are_changed():
    images, mask = torch.zeros(2, 3, 4, 4), torch.ones(2, 4, dtype=torch.int64)
    batch = Batch({"pixel_values": images, "mask": mask}, torch.tensor([0, 1]), first=6)
    found = changed(batch, lambda inputs: inputs + 1)
    assert found.inputs["pixel_values"].mean() == 1
    assert found.inputs["mask"] is mask
    assert (found.first, found.target) == (6, batch.target)
    assert images.sum() == 0
    for inputs, given in (
        ((images, images), r"\(2, 3, 4, 4\) torch.float32, \(2, 3"),
        (mask, r"\(2, 4\) torch.int64"),
    ):
        with pytest.raises(
            DataError, match=f"expected one floating-point tensor of images .* received {given}"
        ):
            changed(Batch(inputs), lambda x: x)
