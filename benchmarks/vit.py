"""What heads and MLP neurons of a small vision transformer are worth, and what pruning them costs.

    python benchmarks/vit.py

Trains the transformer on CIFAR-10 first, if its weights are not in the cache: about 45 minutes of one core,
resumed where it was interrupted. Then a quarter or half of the heads, of the neurons, or of both goes from
every block by the scores of each criterion on 100 test images, without fine-tuning; accuracy is that on the
other 9,900. Every finished cell is written at once; a re-run does what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from shapleaf import _rng
from shapleaf._store import atomic
from shapleaf.integrations.datasets import Images, load_data

SHIFT = 4


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then an MLP, each normalised before and added to what it read."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = (
            nn.LayerNorm(width),
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What determines the transformer: its input and its widths."""

    channels: int
    image: int
    classes: int
    width: int
    depth: int
    heads: int
    hidden: int


class ViT(nn.Module):
    """A vision transformer of 4 x 4 patches, embedded by two convolutions (Xiao et al. 2021)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.width
        self.embed = nn.Sequential(
            nn.Conv2d(sizes.channels, width // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, (sizes.image // 4) ** 2, width))
        self.blocks = nn.Sequential(*(Block(width, sizes.heads, sizes.hidden) for _ in range(sizes.depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.tokens(x))

    def tokens(self, x: Tensor) -> Tensor:
        """Images as ``(images, tokens, width)``."""
        return self.embed(x).flatten(2).transpose(1, 2) + self.position

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits ``(images, classes)`` from all tokens, or from some of them in any order."""
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(1)
    trained(options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=f"cifar10:{ROOT.parent / 'shared' / 'data'}", metavar="SPEC")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of vit.json and vit.md")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "shapleaf", help="of weights")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--train-images", type=int, help="train on so many only")
    parser.add_argument("--epochs", type=int, default=20, help="three quarters of them on half of the tokens")
    parser.add_argument("--images", type=int, default=100, help="calibration images, from the test set")
    parser.add_argument("--test-images", type=int, help="evaluate on so many of the others only")
    return parser.parse_args(arguments)


def trained(options: argparse.Namespace) -> tuple[ViT, dict[str, str]]:
    """The transformer with its weights, trained if they are not in the cache, and how it was trained."""
    data = load_data(options.data, split="train")
    if options.train_images:
        data = data.sample(options.train_images, seed=0)
    channels, image, _ = data.shape
    names = ("width", "depth", "heads", "hidden")
    sizes = Sizes(
        channels=channels,
        image=image,
        classes=len(data.classes),
        **{name: getattr(options, name) for name in names},
    )
    settings = {"sizes": repr(sizes), "images": len(data), "epochs": options.epochs}
    digest = hashlib.sha256(json.dumps([*settings.values(), data.classes]).encode()).hexdigest()[:12]
    path = options.cache / f"vit-{digest}.safetensors"
    torch.manual_seed(0)
    model = ViT(sizes)
    if not path.exists():
        options.cache.mkdir(parents=True, exist_ok=True)
        train(model, data, options.epochs, path)
    model.load_state_dict(load_file(path))
    return model.eval(), {name: str(value) for name, value in settings.items()}


def train(model: ViT, data: Images, epochs: int, path: Path, batch: int = 64) -> None:
    """AdamW on a cosine, labels smoothed, images flipped and shifted; half of the tokens until the last quarter.

    What is drawn in an epoch depends on its number alone, so that one that was interrupted is repeated.
    """
    pixels = torch.stack([data.pixels[int(i)] for i in data.ids])
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    state, begin = path.with_suffix(".pt"), 0
    if state.exists():
        found = torch.load(state, weights_only=True)
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        begin = found["epochs"]
    steps = math.ceil(len(data) / batch)
    for epoch in range(begin, epochs):
        start, total = time.perf_counter(), 0.0
        torch.manual_seed(epoch)
        order = torch.randperm(len(data))
        for step, chosen in enumerate(order.split(batch), start=epoch * steps):
            for group in optimizer.param_groups:
                group["lr"] = 1.5e-3 * rate(step, steps, epochs)
            tokens = model.tokens(augmented(normalised(pixels[chosen], data)))
            if epoch < epochs * 3 // 4:
                tokens = half(tokens)
            loss = F.cross_entropy(model.classify(tokens), data.labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total / len(data):.3f}, {seconds:.0f} s", flush=True)
        with atomic(state) as new:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epochs": epoch + 1,
                },
                new,
            )
    with atomic(path) as new:
        save_file(model.state_dict(), new)
    state.unlink(missing_ok=True)


def rate(step: int, steps: int, epochs: int) -> float:
    """From 0 to 1 within an epoch, then down to 0 along half a cosine.

    >>> [round(rate(step, 10, 3), 3) for step in (0, 9, 10, 20, 30)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < steps:
        return (step + 1) / steps
    return (1 + math.cos(math.pi * (step - steps) / max(1, steps * (epochs - 1)))) / 2


def normalised(pixels: Tensor, data: Images) -> Tensor:
    mean, std = (torch.tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    return (pixels.float() / 255 - mean) / std


def augmented(images: Tensor) -> Tensor:
    """Half of them flipped, each shifted by up to 4 pixels."""
    n, channels, height, width = images.shape
    top, left = (torch.randint(2 * SHIFT + 1, (n, 1)) for _ in range(2))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
    padded = F.pad(images, [SHIFT] * 4)
    each, channel = torch.arange(n), torch.arange(channels)
    return padded[each[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None]]


def half(tokens: Tensor) -> Tensor:
    """Half of each image's tokens, drawn at random (Liu et al. 2022, PatchDropout)."""
    count = tokens.shape[1]
    chosen = torch.rand(len(tokens), count).argsort(1)[:, : count // 2, None]
    return tokens.gather(1, chosen.expand(-1, -1, tokens.shape[2]))


if __name__ == "__main__":
    main()
