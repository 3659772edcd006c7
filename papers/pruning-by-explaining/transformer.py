"""Train the study's small vision transformer on CIFAR-10.

    python papers/pruning-by-explaining/transformer.py

About twenty minutes of one core, resumed where it was interrupted. Architecture and training are those of
``benchmarks/vit.py``, here with four times as many neurons as the blocks are wide, as the large ones have.
The weights go to ``vit.safetensors`` in ``~/.cache/shapleaf/pruning-by-explaining``, where the studies look
for them, with the accuracy in the file's metadata; if they are there, nothing is done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapleaf._store import atomic
from shapleaf.integrations.datasets import Images, load_data

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
from vit import Sizes, ViT, train  # noqa: E402 - the benchmark's folder

CACHE = Path.home() / ".cache" / "shapleaf" / "pruning-by-explaining"
TRAINED = HERE.parents[2] / "shared" / "data"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=f"cifar10:{TRAINED}", metavar="SPEC")
    parser.add_argument("--out", type=Path, default=CACHE, help="folder of vit.safetensors")
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=12, help="three quarters of them on half of the tokens")
    parser.add_argument("--images", type=int, help="train on so many only")
    parser.add_argument("--test-images", type=int, help="take the accuracy on so many only")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    path = options.out / "vit.safetensors"
    if not path.exists():
        make(path, options)
    print(f"{path}: {described(path)['accuracy']} of the test images", flush=True)


def make(path: Path, options: argparse.Namespace) -> None:
    """Train, test, and write weights and how they came about."""
    data, test = (load_data(options.data, split=split) for split in ("train", "test"))
    data, test = some(data, options.images), some(test, options.test_images)
    names = ("width", "depth", "heads", "hidden")
    sizes = Sizes(
        channels=data.shape[0],
        image=data.shape[1],
        classes=len(data.classes),
        **{name: getattr(options, name) for name in names},
    )
    torch.manual_seed(0)
    model = ViT(sizes)
    raw = path.with_stem("vit-trained")
    path.parent.mkdir(parents=True, exist_ok=True)
    start = time.process_time()
    if not raw.exists():
        train(model, data, options.epochs, raw)
    model.load_state_dict(load_file(raw))
    about = {
        "sizes": json.dumps(asdict(sizes)),
        "data": f"{options.data.partition(':')[0]}, {len(data)} images, {options.epochs} epochs",
        "accuracy": f"{accuracy(model.eval(), *test.tensors()):.2%}",
        "test images": str(len(test)),
        "cpu seconds": f"{time.process_time() - start:.0f}",
    }
    with atomic(path) as new:
        save_file(model.state_dict(), new, metadata=about)
    raw.unlink()


def some(data: Images, number: int | None) -> Images:
    """So many of them, drawn; all if no number is given."""
    return data.sample(number, seed=0) if number else data


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        found = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return float((found == labels).double().mean())


def described(path: Path) -> dict[str, str]:
    """What is written about the weights, in their file."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def trained(folder: Path = CACHE) -> ViT:
    """The transformer with its weights, in eval mode.

    Raises:
        SystemExit: it has not been trained yet.
    """
    path = folder / "vit.safetensors"
    if not path.exists():
        raise SystemExit(
            f"the weights {path} do not exist; `python papers/pruning-by-explaining/transformer.py` makes "
            "them."
        )
    model = ViT(Sizes(**json.loads(described(path)["sizes"])))
    model.load_state_dict(load_file(path))
    return model.eval()


if __name__ == "__main__":
    main()
