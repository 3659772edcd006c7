"""Corruptions: the 19 changes of images of Hendrycks and Dietterich (2019), at five severities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import DataError
from .blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from .constants import CONSTANTS, CORRUPTIONS, FAMILIES, Scale
from .digital import brightness, contrast, elastic_transform, jpeg_compression, pixelate, saturate
from .draws import Draws
from .levels import checked, lowered
from .noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from .spatter import spatter
from .weather import fog, frost, snow

Change = Callable[[Tensor, Any, Draws], Tensor]

_CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur, gaussian_blur),
        *(snow, frost, fog, spatter),
        *(brightness, contrast, elastic_transform, pixelate, jpeg_compression, saturate),
    )
}


@dataclass(frozen=True, slots=True)
class Corruption:
    """One of the 19 corruptions (Hendrycks and Dietterich 2019), a :class:`Shift`.

    Pixels are first rounded to the 256 levels of stored images; so are the results, downwards, as in the
    published files. The images need at least 8 x 8 pixels and 3 channels, or 1 (not for ``saturate``). The
    result depends on the seed, the corruption, the severity and the image's id alone.

    What differs from the published files: the random numbers; frost, which is drawn, not photographed;
    distances in ``spatter``, which are exact.

    Args:
        kind: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        scale: whose constants are used: ``cifar`` for small images, ``imagenet`` for those of about 224
            pixels. The latter are far harsher on small ones.
        seed: of the random draws.

    Raises:
        DataError: there is no such corruption, severity or scale.

    >>> import torch
    >>> fog = Corruption("fog", 3)
    >>> fog.name, fog.family
    ('fog 3', 'weather')
    >>> images = torch.full((2, 3, 32, 32), 0.5)
    >>> darker = Corruption("contrast", 5).apply(images, ids=(0, 1))
    >>> tuple(darker.shape), round(255 * float(darker.max()))
    ((2, 3, 32, 32), 128)
    """

    kind: str
    severity: int = 3
    scale: Scale = "cifar"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in CORRUPTIONS:
            raise DataError(f"no corruption is named {self.kind!r}; there are: {', '.join(CORRUPTIONS)}.")
        if self.severity not in (1, 2, 3, 4, 5):
            raise DataError(f"severity must be 1, 2, 3, 4 or 5, received {self.severity!r}.")
        if self.scale not in CONSTANTS:
            raise DataError(f"scale must be 'cifar' or 'imagenet', received {self.scale!r}.")

    @property
    def name(self) -> str:
        """The corruption and its severity, such as "fog 3"."""
        return f"{self.kind} {self.severity}"

    @property
    def family(self) -> str:
        """Noise, blur, weather, digital or extra."""
        return FAMILIES[self.kind]

    def apply(self, images: Tensor, ids: tuple[int, ...]) -> Tensor:
        """The corrupted images, of the same shape and type; see :class:`Shift`.

        Raises:
            DataError: the images are not of that form, or their ids are not as many.
        """
        draws = Draws(self.seed, "corruption", self.kind, self.severity, ids=ids)
        return self.drawn(checked(images, ids, least=8), draws).to(images)

    def drawn(self, images: Tensor, draws: Draws) -> Tensor:
        """Corrupted by given draws; of and as float64."""
        if self.kind == "saturate" and images.shape[1] == 1:
            raise DataError("saturate changes colours, but these images have 1 channel; leave it out.")
        levels = (images * 255).round() / 255
        return lowered(
            _CHANGES[self.kind](levels, CONSTANTS[self.scale][self.kind][self.severity - 1], draws)
        )
