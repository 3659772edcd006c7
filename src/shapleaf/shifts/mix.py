"""Training on a mix of corruptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError
from .constants import MIX1, Scale
from .corruption import Corruption
from .draws import Draws
from .levels import checked, clipped
from .normalisation import Normalisation


@dataclass(frozen=True, slots=True)
class CorruptionMix:
    """Augmentation by corruptions: ``Recipe(augment=CorruptionMix())`` trains as robustly as the paper did.

    For each image and epoch a corruption is drawn from ``names`` and a severity from 0 to 5, all equally
    likely; 0 leaves the image as it is. Both, and all that the corruption draws, come from a stream named by
    the epoch and the image's id: nothing is drawn twice, by whatever worker, and a run can be repeated
    ("Lost in Pruning", Liebenwein et al. 2021). With crops and flips: ``shapleaf.retraining.Compose``.

    Args:
        names: of the corruptions. ``MIX1``, the default, is what the paper trains with; it tests on the
            others, ``MIX2``.
        scale: see :class:`Corruption`.
        seed: of all draws.
        mean: what the inputs were normalised with, per channel; None for images in [0, 1].
        std: likewise.

    Raises:
        DataError: a name or scale is unknown, ``names`` is empty or names one twice, or mean and std do
            not fit.

    >>> mix = CorruptionMix(("contrast", "fog"))
    >>> images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> tuple(mix(images, ids=(0, 1, 2, 3), epoch=0).shape)
    (4, 3, 32, 32)
    >>> mix.drawn(ids=(0, 1, 2, 3), epoch=0)
    [('fog', 4), ('contrast', 3), ('contrast', 4), ('fog', 2)]
    """

    names: tuple[str, ...] = MIX1
    scale: Scale = "cifar"
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        Normalisation(self.mean, self.std)
        if not self.names or len(set(self.names)) < len(self.names):
            raise DataError(f"names must be different corruptions, at least one; received {self.names}.")
        for name in self.names:
            Corruption(name, scale=self.scale)

    def drawn(self, ids: Sequence[int], epoch: int) -> list[tuple[str, int]]:
        """The corruption and severity of each image."""
        draws = Draws(self.seed, "mix", epoch, ids=tuple(ids))
        which = draws.integers(0, len(self.names)).tolist()
        return [
            (self.names[k], severity)
            for k, severity in zip(which, draws.integers(0, 6).tolist(), strict=True)
        ]

    def __call__(self, images: Tensor, ids: Sequence[int], epoch: int) -> Tensor:
        """The images of a batch as they are trained on in an epoch.

        Args:
            images: ``(examples, channels, height, width)``.
            ids: the number of each image in the training set.
            epoch: the number of the epoch.

        Raises:
            DataError: the images are not in [0, 1] before they were normalised, or not as many as the ids.
        """
        normalisation = Normalisation(self.mean, self.std)
        ids = tuple(ids)
        values = checked(clipped(normalisation.undo(images.double())), ids, least=8)
        places: dict[tuple[str, int], list[int]] = {}
        for place, choice in enumerate(self.drawn(ids, epoch)):
            if choice[1]:
                places.setdefault(choice, []).append(place)
        out = images.clone()
        for (name, severity), rows in places.items():
            draws = Draws(self.seed, "mix", epoch, "pixels", ids=tuple(ids[row] for row in rows))
            changed = Corruption(name, severity, self.scale).drawn(values[rows], draws)
            out[torch.tensor(rows, device=out.device)] = normalisation.redo(changed).to(out)
        return out
