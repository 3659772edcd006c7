"""Shifted data: labelled batches whose images were changed, and whole suites of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..data import Batch, batches
from ..errors import DataError
from .attacks import FGSM, PGD
from .constants import CORRUPTIONS, Scale
from .corruption import Corruption
from .distribution import Attack, Distribution, Shift
from .levels import clipped
from .normalisation import Normalisation, Numbers, changed


@runtime_checkable
class Normalised(Protocol):
    """Images that know how they are normalised, and their numbers; ``load_data`` gives such."""

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def ids(self) -> Tensor: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...

    def batches(self, batch_size: int = 100) -> Any:
        """Batches of ``(images, labels)``, in order."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Shifted:
    """Batches whose images were shifted, made anew each time they are gone through; see :func:`shifted`."""

    data: Any
    shift: Shift
    normalisation: Normalisation
    batch_size: int

    def __iter__(self) -> Iterator[Batch]:
        ids = self.data.ids.tolist() if isinstance(self.data, Normalised) else None
        source = self.data.batches(self.batch_size) if isinstance(self.data, Normalised) else self.data
        for batch in batches(source, batch_size=self.batch_size):
            numbers = batch.ids if ids is None else tuple(ids[batch.first : batch.first + batch.examples])
            yield changed(batch, partial(self._changed, ids=numbers))

    def __repr__(self) -> str:
        return f"Shifted({self.shift.name} of {self.data!r})"

    def _changed(self, inputs: Tensor, ids: tuple[int, ...]) -> Tensor:
        images = clipped(self.normalisation.undo(inputs.double()))
        return self.normalisation.redo(self.shift.apply(images, ids)).to(inputs.dtype)


def shifted(
    data: Any,
    shift: Shift,
    *,
    mean: Numbers = None,
    std: Numbers = None,
    batch_size: int = 100,
) -> Shifted:
    """Labelled data under a shift: taken back to images in [0, 1], shifted, normalised again.

    What is drawn for an image depends on its number: its place in the source for what ``load_data`` gives,
    so that a sample is shifted as the whole; else its place among all examples.

    Args:
        data: images of ``load_data``, or batches as for :func:`batches`, which are gone through anew each
            time.
        shift: a :class:`Corruption`, :class:`GaussianNoise`, :class:`UniformNoise`, or another.
        mean: what the inputs were normalised with, per channel. Default: of ``data`` if it knows, else the
            inputs are images in [0, 1].
        std: likewise.
        batch_size: for images of ``load_data``, and one batch that holds all examples.

    Raises:
        DataError: mean and std do not fit; when gone through, images are outside [0, 1].

    >>> import torch
    >>> data = torch.full((3, 1, 32, 32), 2.0), torch.tensor([0, 1, 2])
    >>> darker = shifted(data, Corruption("brightness", 1), mean=(0.2,), std=(0.2,), batch_size=2)
    >>> [(batch.first, round(float(batch.inputs.mean()), 2)) for batch in darker]
    [(0, 2.24), (2, 2.24)]
    """
    if not isinstance(shift, Shift):
        raise DataError(f"a shift has a name, a family and apply(images, ids); received {shift!r}.")
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, received {batch_size}.")
    if mean is None and std is None and isinstance(data, Normalised):
        mean, std = data.mean, data.std
    return Shifted(data, shift, Normalisation(mean, std), batch_size)


def distributions(
    images: Normalised,
    *,
    names: Sequence[str] | None = None,
    severities: Sequence[int] = (3,),
    scale: Scale | None = None,
    noise: Sequence[Shift] = (),
    attacks: Sequence[Attack] = (),
    seed: int = 0,
) -> list[Distribution]:
    """Test distributions made of one set of images: themselves, corrupted, noisy, attacked.

    The first is "clean" and nominal. Corruptions are named with their severity, such as "fog 3".

    Args:
        images: what ``load_data`` gives; for other batches, use :func:`shifted` for each shift.
        names: which of ``CORRUPTIONS``; may be empty. Default: all 19, of images of one channel all but
            ``saturate``, which changes colours.
        severities: of each, 1 to 5.
        scale: see :class:`Corruption`. Default: ``cifar`` up to 64 pixels, else ``imagenet``.
        noise: further shifts, such as ``GaussianNoise(0.1)``.
        attacks: such as ``FGSM(8 / 255)``; mean and std are filled in where they have none.
        seed: of the corruptions.

    Raises:
        DataError: ``images`` does not know its mean, std and ids, an option is unknown, or two
            distributions have the same name.

    >>> from shapleaf.integrations.datasets import load_data
    >>> digits = load_data("digits", split="test")
    >>> suite = distributions(digits, names=("fog", "contrast"), attacks=[FGSM(0.1)])
    >>> [(one.name, one.family) for one in suite]
    [('clean', ''), ('fog 3', 'weather'), ('contrast 3', 'digital'), ('FGSM 0.1', 'attack')]
    """
    if not isinstance(images, Normalised):
        raise DataError(
            "distributions need images that know their mean, std and ids, as load_data gives; received "
            f"{type(images).__name__}. For other batches, use shifted(data, shift, mean=, std=) for each."
        )
    if scale is None:
        scale = "cifar" if max(images.shape[1:]) <= 64 else "imagenet"
    if names is None:
        names = [name for name in CORRUPTIONS if name != "saturate" or images.shape[0] > 1]
    corruptions = [Corruption(name, severity, scale, seed) for name in names for severity in severities]
    clean = images.batches()
    changed_data = [shifted(images, shift) for shift in (*corruptions, *noise)]
    found = [
        Distribution(name="clean", data=clean, nominal=True),
        *(Distribution(name=one.shift.name, data=one, family=one.shift.family) for one in changed_data),
    ]
    for attack in attacks:
        if not isinstance(attack, Attack):
            raise DataError(f"an attack has a name and perturb(model, batch); received {attack!r}.")
        if isinstance(attack, FGSM | PGD) and attack.mean is None:
            attack = replace(attack, mean=images.mean, std=images.std)  # noqa: PLW2901 - the same, completed
        found.append(Distribution(name=attack.name, data=clean, family="attack", attack=attack))
    names_found = [one.name for one in found]
    if len(set(names_found)) < len(names_found):
        twice = sorted({name for name in names_found if names_found.count(name) > 1})
        raise DataError(f"two distributions are named {', '.join(twice)}; leave one out.")
    return found
