"""Labelled images by name: built-in digits, MNIST, CIFAR-10, image folders and Parquet files."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .. import _rng
from ..errors import DataError
from . import digits, require

Split = Literal["train", "test"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET: Statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10: Statistics = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

_TEN = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class Pixels(Protocol):
    """Where images come from: ``pixels[i]`` is one of them, uint8 of shape ``(channels, height, width)``."""

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Images(Dataset[tuple[Tensor, int]]):
    """Labelled images, a Dataset of ``(image, label)``; files are decoded image by image, when asked for.

    An image is a float32 tensor of ``shape``, normalised: ``(pixel / 255 - mean) / std``.

    Attributes:
        name: what was loaded.
        pixels: the source.
        labels: int64, ``(images,)``.
        classes: the name of each label.
        ids: the place of each image in the source, int64, ``(images,)``.
        shape: ``(channels, height, width)`` of every image.
        mean: per channel.
        std: per channel.
        crop: images are resized so that their centre, this share of the shorter side, has ``shape``;
            None leaves them as they are stored.

    >>> data = load_data("digits", split="test")
    >>> data
    Images(digits test: 1000 images of 1 x 16 x 16, 10 classes)
    >>> calibration = data.sample(100, seed=0)
    >>> len(data.without(calibration.ids)), len(list(calibration.batches(64)))
    (900, 2)
    """

    name: str
    pixels: Pixels
    labels: Tensor
    classes: tuple[str, ...]
    ids: Tensor
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        place = int(self.ids[index])
        pixels = self.pixels[place]
        if self.crop is not None:
            pixels = _centre(pixels, self.shape[-1], self.crop)
        if tuple(pixels.shape) != self.shape:
            raise DataError(
                f"image {place} of {self.name} has shape {tuple(pixels.shape)}, expected {self.shape} as the "
                "first; pass image_size= to resize them all."
            )
        mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std, int(self.labels[index])

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"Images({self.name}: {len(self)} images of {size}, {len(self.classes)} classes)"

    def batches(self, batch_size: int = 100) -> DataLoader[tuple[Tensor, int]]:
        """Batches of ``(images, labels)`` in order; can be gone through again and again."""
        return DataLoader(self, batch_size=batch_size, generator=torch.Generator())

    def tensors(self) -> tuple[Tensor, Tensor]:
        """All images and labels in memory: ``(images, channels, height, width)`` and ``(images,)``."""
        return torch.stack([self[index][0] for index in range(len(self))]), self.labels.clone()

    def sample(self, n: int, seed: int) -> Images:
        """``n`` images at random, without replacement.

        Raises:
            DataError: there are fewer.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"a sample of {n} was asked for, but {self.name} has {len(self)} images.")
        order = _rng.stream(seed, "sample").permutation(len(self))[:n]
        return self._chosen(torch.from_numpy(order))

    def without(self, ids: Tensor) -> Images:
        """The images whose ``ids`` are not among the given ones."""
        return self._chosen((~torch.isin(self.ids, ids)).nonzero().flatten())

    def _chosen(self, index: Tensor) -> Images:
        return replace(self, ids=self.ids[index], labels=self.labels[index])


def load_data(
    spec: str,
    *,
    split: Split = "train",
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Images:
    """Labelled images from the core's own digits or from files; nothing is downloaded or unpickled.

    ============================  =======================================================================
    ``digits``                    synthetic 16 x 16 digits, 4,000 to train and 1,000 to test: glyphs drawn
                                  for shapleaf, then moved, turned, sheared, bent, and covered with noise
    ``mnist:DIR``                 the four ``*-ubyte`` files, plain or .gz, in DIR, DIR/raw or DIR/MNIST/raw
    ``cifar10:DIR``               ``cifar10-train.parquet`` and ``cifar10-test.parquet``, or the binary
                                  version's ``data_batch_*.bin`` and ``test_batch.bin``
    ``imagefolder:DIR``           DIR/train/CLASS/* and DIR/test/CLASS/* or DIR/val/CLASS/*; or DIR/CLASS/*
                                  for both splits
    ``parquet:FILE``              the layout of Hugging Face: ``image`` or ``img`` holds the encoded bytes,
                                  ``label`` an integer; ``{split}`` in FILE becomes train or test
    ============================  =======================================================================

    Args:
        spec: one of the above.
        split: train or test.
        image_size: height and width. Images in folders and Parquet files are resized to 256/224 of it and
            cropped to their centre, the others resized. Default: 224 for folders, else as stored.
        mean: per channel, to normalise with. Default: of the source; ImageNet's for folders and Parquet.
        std: likewise.

    Raises:
        DataError: a folder, file, column or class is missing, empty, damaged or not understood.
        MissingExtraError: Pillow or pyarrow is needed: ``pip install 'shapleaf[images]'``.

    >>> image, label = load_data("digits", split="test", image_size=32)[0]
    >>> tuple(image.shape)
    (1, 32, 32)
    """
    found = _read(spec, split)
    if image_size is not None and image_size < 1:
        raise DataError(f"image_size must be at least 1, received {image_size}.")
    source = spec.partition(":")[0]
    if source == "imagefolder" and image_size is None:
        image_size = 224
    channels, height, width = found.pixels[0].shape
    shape = (channels, height, width) if image_size is None else (channels, image_size, image_size)
    share = 224 / 256 if source in ("imagefolder", "parquet") else 1.0
    return Images(
        name=f"{spec} {split}",
        pixels=found.pixels,
        labels=found.labels,
        classes=found.classes,
        ids=torch.arange(len(found.labels)),
        shape=shape,
        mean=per_channel("mean", mean, found.statistics[0], channels),
        std=per_channel("std", std, found.statistics[1], channels),
        crop=None if image_size is None else share,
    )


def per_channel(
    name: str, given: Sequence[float] | None, default: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    """The given numbers, or the default, checked."""
    values = default if given is None else tuple(float(value) for value in given)
    if len(values) != channels or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
        raise DataError(f"{name} must be {channels} finite numbers, std above 0; received {values}.")
    return values


def _centre(pixels: Tensor, size: int, share: float) -> Tensor:
    """Resize the shorter side to ``size / share``, then cut out the centre."""
    height, width = pixels.shape[1:]
    scale = round(size / share) / min(height, width)
    resized = nn.functional.interpolate(
        pixels[None], (round(height * scale), round(width * scale)), mode="bilinear", antialias=True
    )[0]
    top, left = ((side - size) // 2 for side in resized.shape[1:])
    return resized[:, top : top + size, left : left + size]


class _Found(NamedTuple):
    """What a source holds."""

    pixels: Pixels
    labels: Tensor
    classes: tuple[str, ...]
    statistics: Statistics


def _read(spec: str, split: Split) -> _Found:
    source, _, place = spec.partition(":")
    if source not in _SOURCES or bool(place) != (source != "digits"):
        forms = "digits, mnist:DIR, cifar10:DIR, imagefolder:DIR, parquet:FILE"
        raise DataError(f"{spec!r} is no data: expected {forms}.")
    if split not in ("train", "test"):
        raise DataError(f"split must be 'train' or 'test', received {split!r}.")
    found = _SOURCES[source](Path(place).expanduser(), split)
    low, high, last = int(found.labels.min()), int(found.labels.max()), len(found.classes) - 1
    if not 0 <= low <= high <= last:
        raise DataError(f"the labels of {spec} run from {low} to {high}, expected 0 to {last}.")
    return found


def _digits(_: Path, split: Split) -> _Found:
    images, labels = digits.render(split)
    return _Found(torch.from_numpy(images), torch.from_numpy(labels), _TEN, (digits.MEAN, digits.STD))


def _mnist(folder: Path, split: Split) -> _Found:
    prefix = "train" if split == "train" else "t10k"
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        places = [f"{sub}{prefix}-{kind}-ubyte" for sub in ("", "raw/", "MNIST/raw/")]
        arrays.append(_idx(_find(folder, [name for place in places for name in (place, f"{place}.gz")])))
    images, labels = arrays
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels):
        raise DataError(
            f"the {split} files in {folder} are not MNIST: images of shape {tuple(images.shape)}, "
            f"labels of shape {tuple(labels.shape)}."
        )
    return _Found(images[:, None], labels.long(), _TEN, ((0.1307,), (0.3081,)))


def _idx(path: Path) -> Tensor:
    """An idx file of bytes: 0, 0, 8, the number of dimensions, each as a big-endian int32, the data."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}.") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path} is not an idx file of bytes: it begins with {data[:4]!r}.")
    shape = tuple(np.frombuffer(data, ">i4", data[3], 4).tolist())
    expected, received = math.prod(shape), len(data) - 4 - 4 * data[3]
    if min(shape, default=0) < 0 or expected != received:
        raise DataError(
            f"{path} is truncated or damaged: its header says {expected} bytes of data, it has {received}."
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape).copy())


def _cifar10(folder: Path, split: Split) -> _Found:
    files = [f"data_batch_{k}.bin" for k in range(1, 6)] if split == "train" else ["test_batch.bin"]
    parquet = f"cifar10-{split}.parquet"
    found = _find(folder, [parquet, files[0], f"cifar-10-batches-bin/{files[0]}"])
    if found.name == parquet:
        return _parquet(found, split)._replace(classes=CIFAR10_CLASSES, statistics=CIFAR10)
    records = []
    for name in files:
        data = np.fromfile(_find(found.parent, [name]), np.uint8)
        if not len(data) or len(data) % 3073:
            raise DataError(
                f"{found.parent / name} is not a binary batch of CIFAR-10: expected records of 3073 bytes, "
                f"received {len(data)} bytes."
            )
        records.append(torch.from_numpy(data.reshape(-1, 3073)))
    whole = torch.cat(records)
    return _Found(whole[:, 1:].reshape(-1, 3, 32, 32), whole[:, 0].long(), CIFAR10_CLASSES, CIFAR10)


def _find(folder: Path, names: Sequence[str]) -> Path:
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist.")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has none of the files looked for: {', '.join(names)}.")


@dataclass(frozen=True, slots=True)
class _Files:
    paths: tuple[Path, ...]

    def __getitem__(self, index: int, /) -> Tensor:
        path = self.paths[index]
        return _decoded(path.read_bytes(), str(path))


def _imagefolder(folder: Path, split: Split) -> _Found:
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist.")
    splits = [name for name in ("train", "test", "val") if _subfolders(folder / name)]
    wanted = [name for name in (("train",) if split == "train" else ("test", "val")) if name in splits]
    if splits and not wanted:
        raise DataError(
            f"{folder} has class folders for {' and '.join(splits)} only; split={split!r} looks in "
            f"{'train' if split == 'train' else 'test or val'}."
        )
    root = folder / wanted[0] if wanted else folder
    every = [folder / name for name in splits] or [folder]
    classes = sorted({name for part in every for name in _subfolders(part)})
    if not classes:
        raise DataError(f"{folder} has no class folders: expected CLASS/* or {split}/CLASS/* in it.")
    paths, labels = [], []
    for label, name in enumerate(classes):
        images = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not images:
            raise DataError(f"the class folder {root / name} holds no images ({', '.join(_SUFFIXES)}).")
        paths += images
        labels += [label] * len(images)
    return _Found(_Files(tuple(paths)), torch.tensor(labels), tuple(classes), IMAGENET)


def _subfolders(folder: Path) -> list[str]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return [path.name for path in paths if path.is_dir() and not path.name.startswith(".")]


@dataclass(frozen=True, slots=True)
class _Column:
    path: Path
    column: Any

    def __getitem__(self, index: int, /) -> Tensor:
        value = self.column[index].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        name = f"image {index} of {self.path}"
        if not isinstance(data, bytes):
            raise DataError(f"{name} holds no encoded bytes but a {type(data).__name__}.")
        return _decoded(data, name)


def _parquet(file: Path, split: Split) -> _Found:
    arrow, parquet = require("pyarrow", "images"), require("pyarrow.parquet", "images")
    path = Path(str(file).replace("{split}", split))
    if not path.is_file():
        raise DataError(f"the file {path} does not exist.")
    try:
        opened = parquet.ParquetFile(path, memory_map=True)
        names = opened.schema_arrow.names
        image, label = (_column(path, names, options) for options in (("image", "img"), ("label", "labels")))
        table = opened.read(columns=[image, label])
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file, or is damaged: {error}.") from error
    column = table.column(label)
    if not arrow.types.is_integer(column.type) or column.null_count or not len(column):
        raise DataError(
            f"the column {label!r} of {path} must hold an integer for every image; "
            f"it has {len(column)} rows of {column.type}, {column.null_count} of them empty."
        )
    labels = torch.from_numpy(column.to_numpy().astype(np.int64))
    classes = _recorded(table.schema.metadata, label) or tuple(map(str, range(int(labels.max()) + 1)))
    return _Found(_Column(path, table.column(image)), labels, classes, IMAGENET)


def _recorded(metadata: Any, label: str) -> tuple[str, ...]:
    """The class names that Hugging Face's writer adds to the file, if it was that."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return ()


def _column(path: Path, names: list[str], options: tuple[str, ...]) -> str:
    for name in options:
        if name in names:
            return name
    raise DataError(f"{path} has no column {' or '.join(options)}; its columns are: {', '.join(names)}.")


def _decoded(data: bytes, name: str) -> Tensor:
    pillow = require("PIL.Image", "images")
    try:
        with pillow.open(io.BytesIO(data)) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(f"{name} cannot be decoded: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


_SOURCES: dict[str, Callable[[Path, Split], _Found]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "imagefolder": _imagefolder,
    "parquet": _parquet,
}
