"""What pruned networks keep and lose where every pixel has a class: synthetic shapes, or VOC with DeepLabV3.

    python papers/lost-in-pruning/segmentation.py
    python papers/lost-in-pruning/segmentation.py --voc VOCdevkit/VOC2012 --weights deeplabv3.pth

The first draws discs, squares and triangles on a rough ground and takes minutes. The second is the paper's
experiment, for those who have the images and a trained network; a graphics card is needed for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import CACHE, HERE, assessed, command, positive
from page import write
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

import shapleaf as sl
from shapleaf import _context, retraining
from shapleaf._rng import stream
from shapleaf.integrations import require
from shapleaf.integrations.models import load_weights
from shapleaf.retraining import Cosine, Recipe, Retraining, preset
from shapleaf.shifts import CORRUPTIONS

KEEPS = (0.7, 0.5, 0.35, 0.25, 0.15, 0.08)
METHODS = ("WT", "SiPP", "FT", "PFP", "control")
IGNORE = 255
SAMPLE = 128
"""Images of VOC that decide what is pruned, and are not trained on."""
SIZE = 32
"""Height and width of the images with shapes."""
SHAPES = ("ground", "disc", "square", "triangle")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixel_loss(output: Any, target: Tensor) -> Tensor:
    """Cross-entropy of each example over the pixels that count, and half of that of an auxiliary head."""
    losses, heads = [], [_context.logits(output)]
    if isinstance(output, dict) and "aux" in output:
        heads.append(output["aux"])
    for scores in heads:
        each = functional.cross_entropy(scores, target.long(), ignore_index=IGNORE, reduction="none")
        losses.append(each.flatten(1).sum(1) / (target != IGNORE).flatten(1).sum(1).clamp(min=1))
    return losses[0] + 0.5 * sum(losses[1:], torch.zeros_like(losses[0]))


@dataclass(frozen=True, eq=False)
class Study:
    """A network, what it is trained and tested on, and how its chains go."""

    title: str
    model: nn.Module
    train: Any
    sample: Any
    test: Any
    normalised: tuple[tuple[float, ...], tuple[float, ...]]
    classes: tuple[str, ...]
    retraining: Retraining


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    study = shapes(options) if options.voc is None else voc(options)
    cache = options.cache / study.title
    chains = []
    for method in options.methods:
        folder = cache / method
        made = sl.cycle(
            study.model, chosen(method), study.retraining, study.train, sample=study.sample, path=folder
        )
        print(made, flush=True)
        chains += made.candidates(study.model, folder)
    dense = sl.Candidate(name="dense", model=study.model, role="reference")
    outcomes = assessed(
        [dense, *chains],
        shifts(study, options.corruptions),
        cache,
        classes=study.classes,
        ignore=IGNORE,
    )
    told = command("segmentation.py", options, parse([]))
    write(sl.robustness(outcomes), study.title, told, options.out, cache)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--voc", type=Path, help="the folder VOC2012 of VOC's devkit; shapes by default")
    parser.add_argument("--weights", type=Path, help="of torchvision's deeplabv3_resnet50 for 21 classes")
    parser.add_argument("--size", type=positive, default=256, help="height and width of VOC's images")
    parser.add_argument("--images", type=positive, default=2_000, help="shapes to train on")
    parser.add_argument("--test-images", type=positive, default=300, help="shapes to test on")
    parser.add_argument("--epochs", type=positive, default=12, help="on shapes, before pruning")
    parser.add_argument("--width", type=positive, default=16, help="channels of the network for shapes")
    parser.add_argument("--keeps", type=float, nargs="+", help="shares of the parameters that stay")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument(
        "--corruptions", nargs="+", default=CORRUPTIONS, choices=CORRUPTIONS, help="to test on"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is unfinished, and large")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--threads", type=positive, default=1)
    return parser.parse_args(arguments)


def chosen(method: str) -> Any:
    """The method, with the loss of pixels where it takes one."""
    found = retraining.METHODS[method]
    return replace(found, loss=pixel_loss) if hasattr(found, "loss") else found


def shifts(study: Study, names: tuple[str, ...]) -> Iterator[sl.Distribution]:
    """Clean, and each corruption at severity 3."""
    mean, std = study.normalised
    yield sl.Distribution(name="clean", data=study.test, nominal=True)
    for name in names:
        shift = sl.Corruption(name, severity=3, scale="cifar" if study.title == "shapes" else "imagenet")
        data = sl.shifted(study.test, shift, mean=mean, std=std)
        yield sl.Distribution(name=shift.name, data=data, family=shift.family)


# ── synthetic shapes ─────────────────────────────────────────────────────────────────────────


def shapes(options: argparse.Namespace) -> Study:
    """Discs, squares and triangles, and a small network that was trained to find them."""
    recipe = Recipe(epochs=options.epochs, batch=32, lr=0.05, decay=Cosine(), warmup=1, loss=pixel_loss)
    train, test = drawn("train", options.images), drawn("test", options.test_images)
    with _context.rng(0):
        model = Segmenter(len(SHAPES), options.width)
    sl.train(model, train, recipe, path=options.cache / "shapes" / "dense")
    return Study(
        title="shapes",
        model=model.eval(),
        train=train,
        sample=[drawn("sample", 64)],
        test=DataLoader(TensorDataset(*test), batch_size=100),
        normalised=(MEAN, STD),
        classes=SHAPES,
        retraining=Retraining(
            keeps=tuple(options.keeps or KEEPS),
            recipe=replace(recipe, epochs=max(1, options.epochs // 3), lr=0.02, warmup=0.5),
        ),
    )


class Segmenter(nn.Module):
    """An encoder and a decoder with shortcuts between them."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.fine, self.middle = _layer(3, width, 1), _layer(width, 2 * width, 2)
        self.coarse = nn.Sequential(_layer(2 * width, 4 * width, 2), _layer(4 * width, 4 * width, 1))
        self.up_middle, self.up_fine = _layer(6 * width, 2 * width, 1), _layer(3 * width, width, 1)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = functional.interpolate(self.coarse(middle), scale_factor=2.0)
        middle = functional.interpolate(self.up_middle(torch.cat([coarse, middle], 1)), scale_factor=2.0)
        return self.head(self.up_fine(torch.cat([middle, fine], 1)))


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def drawn(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Normalised images ``(count, 3, 32, 32)`` and their label maps; a shape's border does not count."""
    images, labels = zip(*(_picture(split, index) for index in range(count)), strict=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (torch.stack(images) - mean) / std, torch.stack(labels)


def _picture(split: str, index: int) -> tuple[Tensor, Tensor]:
    rng = stream(0, "shapes", split, index)
    colour = rng.uniform(0.2, 0.8, (3, 1, 1))
    image = colour + 0.06 * rng.standard_normal((3, SIZE, SIZE))
    labels = np.zeros((SIZE, SIZE), np.int64)
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(rng.integers(1, 4)):
        kind = int(rng.integers(1, len(SHAPES)))
        radius = rng.uniform(5, 9)
        down, right = y - rng.uniform(4, SIZE - 4), x - rng.uniform(4, SIZE - 4)
        distance = _DISTANCES[kind](down, right) - radius
        shade = np.clip(colour + rng.choice((-1, 1)) * rng.uniform(0.2, 0.4, (3, 1, 1)), 0, 1)
        image = np.where(distance < 0, shade + 0.06 * rng.standard_normal((3, SIZE, SIZE)), image)
        labels = np.where(distance < 0, kind, labels)
        labels = np.where(np.abs(distance) < 0.5, IGNORE, labels)
    return torch.from_numpy(image.clip(0, 1)).float(), torch.from_numpy(labels)


_DISTANCES: dict[int, Callable[[Any, Any], Any]] = {
    1: np.hypot,
    2: lambda down, right: np.maximum(abs(down), abs(right)),
    3: lambda down, right: np.maximum(down, abs(right) * 1.5 - down / 2),
}
"""How far a point is from the centre of a shape, in radii that the shape's border is at."""


# ── VOC ──────────────────────────────────────────────────────────────────────────────────────


class Voc(Dataset[tuple[Tensor, Tensor]]):
    """VOC's images and label maps, their shorter side resized and the centre cut out."""

    def __init__(self, folder: Path, split: str, size: int) -> None:
        names = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not names.exists():
            raise SystemExit(f"{names} does not exist; --voc takes the folder VOC2012 of the devkit.")
        self.folder, self.size, self.names = folder, size, names.read_text().split()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pillow = require("PIL.Image", "images")
        name = self.names[index]
        with pillow.open(self.folder / "JPEGImages" / f"{name}.jpg") as photo:
            image = self._cut(photo.convert("RGB"), pillow.Resampling.BILINEAR)
        with pillow.open(self.folder / "SegmentationClass" / f"{name}.png") as labels:
            label = self._cut(labels, pillow.Resampling.NEAREST)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
        return (image.permute(2, 0, 1).float() / 255 - mean) / std, label.long()

    def _cut(self, image: Any, how: Any) -> Tensor:
        scale = self.size / min(image.size)
        width, height = (max(self.size, round(side * scale)) for side in image.size)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        resized = image.resize((width, height), how)
        return torch.from_numpy(np.array(resized.crop((left, top, left + self.size, top + self.size))))


def voc(options: argparse.Namespace) -> Study:
    """DeepLabV3 with the user's weights, on the user's images."""
    models = require("torchvision.models.segmentation", "vision")
    if options.weights is None:
        raise SystemExit("--voc needs --weights, a trained deeplabv3_resnet50 of torchvision for 21 classes.")
    model = models.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    load_weights(model, options.weights)
    train, test = (Voc(options.voc, split, options.size) for split in ("train", "val"))
    order = stream(0, "sample").permutation(len(train))
    size = min(SAMPLE, len(train) // 2)
    sample, rest = (torch.utils.data.Subset(train, part.tolist()) for part in (order[:size], order[size:]))
    settings = preset("paper", "voc-deeplabv3")
    return Study(
        title="voc",
        model=model.eval(),
        train=rest,
        sample=list(DataLoader(sample, batch_size=8)),
        test=DataLoader(test, batch_size=8),
        normalised=IMAGENET,
        classes=tuple(map(str, range(21))),
        retraining=replace(
            settings,
            keeps=tuple(options.keeps or settings.keeps),
            retrains=None if options.keeps else settings.retrains,
            recipe=replace(settings.recipe, loss=pixel_loss),
        ),
    )


if __name__ == "__main__":
    main()
