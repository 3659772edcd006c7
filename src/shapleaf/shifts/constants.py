"""How strong each corruption is: its numbers at severities 1 to 5, in two scales.

Those of ``cifar`` made CIFAR-10-C (Hendrycks and Dietterich 2019), for images of 32 pixels. Those of
``imagenet`` are for images of 224 pixels and what the package imagecorruptions applies; they made ImageNet-C,
but for elastic_transform, which that package defines anew.
"""

from __future__ import annotations

from typing import Any, Literal

Scale = Literal["cifar", "imagenet"]

FAMILIES: dict[str, str] = {
    "gaussian_noise": "noise",
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "defocus_blur": "blur",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "zoom_blur": "blur",
    "snow": "weather",
    "frost": "weather",
    "fog": "weather",
    "brightness": "weather",
    "contrast": "digital",
    "elastic_transform": "digital",
    "pixelate": "digital",
    "jpeg_compression": "digital",
    "speckle_noise": "extra",
    "gaussian_blur": "extra",
    "spatter": "extra",
    "saturate": "extra",
}
"""The family of each corruption, in the order of the paper; the extra ones are meant for validation."""

CORRUPTIONS: tuple[str, ...] = tuple(FAMILIES)
"""The names of the 19 corruptions.

>>> len(CORRUPTIONS), CORRUPTIONS[0]
(19, 'gaussian_noise')
"""

MIX1: tuple[str, ...] = (
    "contrast",
    "elastic_transform",
    "gaussian_blur",
    "impulse_noise",
    "motion_blur",
    "pixelate",
    "shot_noise",
    "snow",
    "zoom_blur",
)
"""The nine corruptions that "Lost in Pruning" trains with."""

MIX2: tuple[str, ...] = tuple(name for name in CORRUPTIONS if name not in MIX1)
"""The ten corruptions that it holds out."""

_CIFAR: dict[str, tuple[Any, ...]] = {
    # standard deviation
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.1),
    # photons at full brightness
    "shot_noise": (500, 250, 100, 75, 50),
    # share of the values that are replaced
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    # radius of the disk, deviation of the blur that smooths its edge
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # deviation of the blur before and after, farthest move, rounds
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # radius, deviation
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # where the zoom factors end, and their step
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    # mean and deviation of the flakes, their zoom, the least that is a flake, radius and deviation of their
    # fall, how much of the image's own colour is kept
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # weight of the image, weight of the frost, how many pixels of the frost become one
    "frost": ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
    # how thick, how fast its details fade
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # what is added to the value (of hue, saturation, value)
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    # what the distance to the mean is multiplied with
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    # in sides of the image: strength and smoothness of the bending, farthest move of a corner
    "elastic_transform": (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    # how much smaller the image becomes on its way
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    # JPEG's quality
    "jpeg_compression": (80, 65, 58, 50, 40),
    # standard deviation
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    # standard deviation, pixels
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    # mean, deviation and blur of the liquid, the least that is a drop, opacity (of water) or blur (of mud),
    # whether it is mud
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    # what the saturation is multiplied with, what is added to it
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

_IMAGENET: dict[str, tuple[Any, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    # in sides of the image: strength times the farthest move of a pixel, smoothness; no corner moves
    "elastic_transform": tuple(
        (0.005 * 250 * strength, 0.01, 0) for strength in (0.05, 0.065, 0.085, 0.1, 0.12)
    ),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": (25, 18, 15, 10, 7),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
    "gaussian_blur": (1, 2, 3, 4, 6),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

CONSTANTS: dict[Scale, dict[str, tuple[Any, ...]]] = {"cifar": _CIFAR, "imagenet": _IMAGENET}
"""``CONSTANTS[scale][name][severity - 1]``."""
