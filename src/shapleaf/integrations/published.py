"""Published test sets of other distributions, where the user has them: CIFAR-10-C, CIFAR-10.1, ImageNet-C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..shifts.constants import CORRUPTIONS, FAMILIES
from ..shifts.distribution import Distribution
from .datasets import CIFAR10, CIFAR10_CLASSES, Images, load_data, per_channel

_LAYOUTS = {
    "cifar10c": "DIR/<corruption>.npy, uint8 of shape (5 n, 32, 32, 3), severity after severity, and "
    "DIR/labels.npy, as in CIFAR-10-C.tar (zenodo.org/records/2535967)",
    "cifar10.1": "DIR/cifar10.1_v6_data.npy, uint8 of shape (n, 32, 32, 3), and DIR/cifar10.1_v6_labels.npy "
    "(github.com/modestyachts/CIFAR-10.1)",
    "imagenetc": "DIR/<corruption>/<severity>/<class>/*, as in the tars of ImageNet-C "
    "(zenodo.org/records/2235448)",
}


def load_shifted(
    spec: str,
    *,
    names: Sequence[str] = CORRUPTIONS,
    severities: Sequence[int] = (3,),
    ids: Tensor | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 100,
) -> list[Distribution]:
    """The distributions of a published test set; nothing is downloaded or unpickled.

    =================  ==============================================================================
    ``cifar10c:DIR``   ``DIR/<corruption>.npy`` with 5 x 10,000 images, severity after severity, and
                       ``DIR/labels.npy``; mapped, not read into memory
    ``cifar10.1:DIR``  ``DIR/cifar10.1_v6_data.npy`` and ``DIR/cifar10.1_v6_labels.npy``; one distribution
    ``imagenetc:DIR``  ``DIR/<corruption>/<severity>/<class>/*``
    =================  ==============================================================================

    Args:
        spec: one of the above.
        names: which of the corruptions; they are called as their files and folders are. CIFAR-10.1 has none.
        severities: of each, 1 to 5.
        ids: take these images of each only, by their place in the test set, such as those of a sample of
            the clean test images. Default: all.
        mean: per channel, to normalise with. Default: CIFAR-10's or ImageNet's.
        std: likewise.
        batch_size: of the batches.

    Raises:
        DataError: a file or folder is missing (the message says what there is), or is not what it must be.
        MissingExtraError: Pillow is needed for ImageNet-C.

    >>> load_shifted("cifar10c:/nowhere")
    Traceback (most recent call last):
    shapleaf.errors.DataError: the folder /nowhere does not exist; expected DIR/<corruption>.npy, ...
    """
    source, _, place = spec.partition(":")
    if source not in _SOURCES or not place:
        raise DataError(f"{spec!r} is no shifted data: expected cifar10c:DIR, cifar10.1:DIR, imagenetc:DIR.")
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        raise DataError(f"no corruption is named {unknown[0]!r}; there are: {', '.join(CORRUPTIONS)}.")
    if any(severity not in (1, 2, 3, 4, 5) for severity in severities):
        raise DataError(f"severities must be 1 to 5, received {tuple(severities)}.")
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist; expected {_LAYOUTS[source]}.")
    found = []
    for part in _SOURCES[source](folder, names, severities):
        images = part.images if ids is None else _chosen(part.images, ids)
        images = replace(
            images,
            mean=per_channel("mean", mean, images.mean, images.shape[0]),
            std=per_channel("std", std, images.std, images.shape[0]),
        )
        found.append(Distribution(name=part.name, data=images.batches(batch_size), family=part.family))
    return found


class _Part(NamedTuple):
    """One distribution of a set."""

    name: str
    family: str
    images: Images


@dataclass(frozen=True, slots=True)
class _Rows:
    """Images of an array ``(images, height, width, channels)`` from ``first`` on; see ``Pixels``."""

    array: np.ndarray
    first: int = 0

    def __getitem__(self, index: int, /) -> Tensor:
        return torch.from_numpy(np.array(self.array[self.first + index])).permute(2, 0, 1)


def _cifar10c(folder: Path, names: Sequence[str], severities: Sequence[int]) -> list[_Part]:
    there = sorted(path.stem for path in folder.glob("*.npy") if path.stem in CORRUPTIONS)
    _complete(folder, names, there, "cifar10c")
    labels = _labels(folder / "labels.npy", "cifar10c")
    if len(labels) % 5:
        raise DataError(
            f"{folder / 'labels.npy'} has {len(labels)} labels, which are not 5 severities of the same; "
            f"expected {_LAYOUTS['cifar10c']}."
        )
    size = len(labels) // 5
    parts = []
    for name in names:
        array = _pixels(folder / f"{name}.npy", len(labels), "cifar10c")
        for severity in severities:
            first = (severity - 1) * size
            rows, row_labels = _Rows(array, first), labels[first : first + size]
            images = _images(f"cifar10c:{folder} {name} {severity}", rows, row_labels)
            parts.append(_Part(f"{name} {severity}", FAMILIES[name], images))
    return parts


def _cifar101(folder: Path, names: Sequence[str], severities: Sequence[int]) -> list[_Part]:
    labels = _labels(folder / "cifar10.1_v6_labels.npy", "cifar10.1")
    rows = _Rows(_pixels(folder / "cifar10.1_v6_data.npy", len(labels), "cifar10.1"))
    return [_Part("CIFAR-10.1", "resampled", _images(f"cifar10.1:{folder}", rows, labels))]


def _imagenetc(folder: Path, names: Sequence[str], severities: Sequence[int]) -> list[_Part]:
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name in CORRUPTIONS)
    _complete(folder, names, there, "imagenetc")
    parts = []
    for name in names:
        for severity in severities:
            place = folder / name / str(severity)
            if not place.is_dir():
                raise DataError(f"the folder {place} does not exist; expected {_LAYOUTS['imagenetc']}.")
            # The published images are cut out already.
            images = replace(load_data(f"imagefolder:{place}", split="test"), crop=1.0)
            parts.append(_Part(f"{name} {severity}", FAMILIES[name], images))
    return parts


def _complete(folder: Path, names: Sequence[str], there: list[str], source: str) -> None:
    missing = [name for name in names if name not in there]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; it has {', '.join(there) or 'no corruption'}. Pass names= "
            f"for those that there are, or complete it: expected {_LAYOUTS[source]}."
        )


def _array(path: Path, source: str) -> np.ndarray:
    try:
        array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; expected {_LAYOUTS[source]}.") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as an array: {error}; expected {_LAYOUTS[source]}."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays, expected one: {_LAYOUTS[source]}.")
    return array


def _labels(path: Path, source: str) -> Tensor:
    array = _array(path, source)
    fits = array.ndim == 1 and len(array) and array.dtype.kind in "iu"
    if not fits or array.min() < 0 or array.max() > 9:
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected an integer from 0 to 9 per image."
        )
    return torch.from_numpy(array.astype(np.int64))


def _pixels(path: Path, count: int, source: str) -> np.ndarray:
    array = _array(path, source)
    if array.shape != (count, 32, 32, 3) or array.dtype != np.uint8:
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected uint8 of shape "
            f"{(count, 32, 32, 3)}, one image for each label."
        )
    return array


def _images(name: str, rows: _Rows, labels: Tensor) -> Images:
    mean, std = CIFAR10
    ids = torch.arange(len(labels))
    return Images(
        name=name,
        pixels=rows,
        labels=labels,
        classes=CIFAR10_CLASSES,
        ids=ids,
        shape=(3, 32, 32),
        mean=mean,
        std=std,
    )


def _chosen(images: Images, ids: Tensor) -> Images:
    if ids.ndim != 1 or not len(ids) or int(ids.min()) < 0 or int(ids.max()) >= len(images):
        raise DataError(f"ids must be places from 0 to {len(images) - 1} in {images.name}, at least one.")
    return replace(images, ids=images.ids[ids], labels=images.labels[ids])


_SOURCES: dict[str, Callable[[Path, Sequence[str], Sequence[int]], list[_Part]]] = {
    "cifar10c": _cifar10c,
    "cifar10.1": _cifar101,
    "imagenetc": _imagenetc,
}
