"""What all 19 corruptions share; their agreement with the package imagecorruptions, where it is installed."""

import numpy as np
import pytest
import torch

from shapleaf.errors import DataError
from shapleaf.shifts import CORRUPTIONS, Corruption, Shift

EVERY = pytest.mark.parametrize("kind", CORRUPTIONS)


@EVERY
def test_o23_results_are_levels_in_range_and_can_be_repeated(kind, photos):
    images = photos(3)
    before = images.clone()
    state = torch.get_rng_state()
    for scale in ("cifar", "imagenet"):
        for severity in range(1, 6):
            corruption = Corruption(kind, severity, scale)
            found = corruption.apply(images, (0, 1, 2))
            assert found.shape == images.shape
            assert found.dtype == images.dtype
            levels = (found * 255).round()
            assert float((found * 255 - levels).abs().max()) < 1e-3
            assert 0 <= float(levels.min()) <= float(levels.max()) <= 255
            assert torch.equal(found, corruption.apply(images, (0, 1, 2)))
            assert not torch.equal(found, images)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@EVERY
def test_an_image_is_corrupted_alike_in_any_batch(kind, photos):
    images, ids = photos(5), (7, 3, 11, 0, 4)
    for severity in (3, 5):
        corruption = Corruption(kind, severity)
        whole = corruption.apply(images, ids)
        parts = [
            corruption.apply(images[part], ids[part]) for part in (slice(0, 1), slice(1, 3), slice(3, 5))
        ]
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(corruption.apply(images.flip(0), ids[::-1]).flip(0), whole)


RANDOM = [
    name
    for name in CORRUPTIONS
    if name
    not in (
        "defocus_blur",
        "zoom_blur",
        "gaussian_blur",
        "brightness",
        "contrast",
        "saturate",
        "pixelate",
        "jpeg_compression",
    )
]


@pytest.mark.parametrize("kind", RANDOM)
def test_draws_differ_by_id_and_seed(kind, photos):
    image = photos(1)
    twins = Corruption(kind, 4).apply(image.expand(2, -1, -1, -1), (0, 1))
    assert not torch.equal(*twins)
    assert not torch.equal(Corruption(kind, 4, seed=1).apply(image, (0,)), twins[:1])


@EVERY
def test_any_size_and_one_channel(kind, photos):
    for side, width in ((8, 8), (9, 31), (50, 33)):
        for scale in ("cifar", "imagenet"):
            images = photos(2, side, width=width)
            assert Corruption(kind, 5, scale).apply(images, (0, 1)).shape == images.shape
            if kind != "saturate":
                assert Corruption(kind, 5, scale).apply(images[:, :1], (0, 1)).shape == (2, 1, side, width)


@pytest.mark.parametrize("kind", ["fog", "gaussian_noise", "jpeg_compression", "brightness"])
def test_errors_of_normalising_change_nothing(kind, photos):
    images = photos(2)
    mean, std = (
        torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1),
        torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1),
    )
    again = ((images - mean) / std * std + mean).clamp(0, 1)
    assert not torch.equal(again, images)
    assert torch.equal(Corruption(kind).apply(again, (0, 1)), Corruption(kind).apply(images, (0, 1)))


def test_precision_is_that_of_the_images(photos):
    images = photos(2)
    exact = Corruption("fog").apply(images.double(), (0, 1))
    assert exact.dtype == torch.float64
    assert torch.equal(exact.float(), Corruption("fog").apply(images, (0, 1)))


MONOTONE = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "contrast",
    "brightness",
    "jpeg_compression",
)


@pytest.mark.parametrize("scale", ["cifar", "imagenet"])
@pytest.mark.parametrize("kind", MONOTONE)
def test_o23_severity_is_monotone_in_the_squared_error(kind, scale, photos):
    images = photos(8)
    errors = [
        float((Corruption(kind, s, scale).apply(images, range(8)) - images).square().mean())
        for s in range(1, 6)
    ]
    assert errors == sorted(errors)
    assert errors[4] > 1.5 * errors[0]


@pytest.mark.data
def test_o23_severity_is_monotone_on_cifar(shared):
    from shapleaf.integrations.datasets import load_data

    data = load_data(f"cifar10:{shared}", split="test", mean=[0.0] * 3, std=[1.0] * 3).sample(20, seed=0)
    images, ids = data.tensors()[0], tuple(data.ids.tolist())
    for kind in MONOTONE:
        errors = [
            float((Corruption(kind, s).apply(images, ids) - images).square().mean()) for s in range(1, 6)
        ]
        assert errors == sorted(errors), kind


def test_it_is_a_shift_with_a_name():
    found = Corruption("glass_blur", 5, "imagenet", seed=2)
    assert isinstance(found, Shift)
    assert (found.name, found.family) == ("glass_blur 5", "blur")
    assert found == Corruption("glass_blur", 5, "imagenet", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mist"}, "no corruption is named 'mist'; there are: gaussian_noise, shot_noise"),
        ({"kind": "fog", "severity": 0}, "severity must be 1, 2, 3, 4 or 5, received 0"),
        ({"kind": "fog", "severity": 6}, "received 6"),
        ({"kind": "fog", "severity": 2.5}, "received 2.5"),
        ({"kind": "fog", "scale": "mnist"}, "scale must be 'cifar' or 'imagenet', received 'mnist'"),
    ],
)
def test_what_is_no_corruption(options, message):
    with pytest.raises(DataError, match=message):
        Corruption(**options)


def test_what_cannot_be_corrupted():
    fog = Corruption("fog")
    with pytest.raises(DataError, match=r"\[0, 1\], received -2"):
        fog.apply(torch.full((1, 3, 32, 32), -2.0), (0,))
    with pytest.raises(DataError, match="8 x 8 pixels at least, received 4 x 32"):
        fog.apply(torch.zeros(1, 3, 4, 32), (0,))
    with pytest.raises(DataError, match="received 0 images"):
        fog.apply(torch.zeros(0, 3, 32, 32), ())


# agreement with imagecorruptions, whose constants are those of scale="imagenet"

SAME = {  # without a random draw: the largest and the mean difference, in levels
    **dict.fromkeys(("zoom_blur", "gaussian_blur", "brightness", "contrast"), (1, 0.05)),
    "saturate": (
        1,
        0.5,
    ),  # doubled, levels are whole numbers again, of which theirs miss many by an error of computing
    "defocus_blur": (1, 0.05),
    "jpeg_compression": (0, 0),
    "pixelate": (0, 0),
}
LIKE = {  # with one: relative difference of the root mean square error and of the deviation
    **dict.fromkeys(("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"), 0.02),
    **dict.fromkeys(("glass_blur", "elastic_transform"), 0.03),
    **dict.fromkeys(("motion_blur", "snow"), 0.1),
    **dict.fromkeys(("fog", "spatter"), 0.15),
    "frost": 0.25,  # textures instead of photographs
}


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("severity", range(1, 6))
def test_imagecorruptions_agrees(kind, severity, photos):
    theirs = pytest.importorskip("imagecorruptions")
    images = photos(24, 96)
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    ours = Corruption(kind, severity, "imagenet").apply(images, range(24))
    found = (ours * 255).round().permute(0, 2, 3, 1).numpy()
    np.random.seed(0)  # noqa: NPY002 - theirs knows no other
    expected = np.stack([theirs.corrupt(image, severity, kind) for image in arrays]).astype(float)
    if kind in SAME:
        gap = np.abs(found - expected)
        largest, mean = SAME[kind]
        assert gap.max() <= largest
        assert gap.mean() <= mean
    else:
        size, expected_size = (np.sqrt(np.square(x - arrays).mean()) for x in (found, expected))
        assert size == pytest.approx(expected_size, rel=LIKE[kind])
        assert found.std() == pytest.approx(expected.std(), rel=LIKE[kind])


@pytest.mark.slow
def test_opencv_finds_the_same_edges(photos):
    cv2 = pytest.importorskip("cv2")
    from shapleaf.shifts.spatter import edges, equalised

    levels = (photos(6, 64, channels=1) * 255).round().double()
    for image, found, spread in zip(levels[:, 0], edges(levels)[:, 0], equalised(levels)[:, 0], strict=True):
        array = image.byte().numpy()
        np.testing.assert_array_equal(found.numpy(), cv2.Canny(array, 50, 150) > 0)
        np.testing.assert_array_equal(spread.numpy(), cv2.equalizeHist(array))
