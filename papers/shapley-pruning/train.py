"""Train the network for MNIST, as ``models.RECIPE`` says.

    python papers/shapley-pruning/train.py

About five minutes of one core. The weights go to ``~/.cache/shapleaf``, where the studies look for them; if
they are there, nothing is done.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from models import RECIPE, LeNet, build, cached
from results import TRAINED
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from shapleaf._store import atomic
from shapleaf.integrations.datasets import Images, load_data


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder of MNIST")
    parser.add_argument("--test-images", type=int, default=10_000, help="take the accuracy on so many")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    path = cached()
    torch.manual_seed(RECIPE["seed"])
    network = build("mnist")
    train_, test = (
        load_data(f"mnist:{options.data}", split=split, mean=network.mean, std=network.std)
        for split in ("train", "test")
    )
    if path.exists():
        network.model.load_state_dict(load_file(path))
    else:
        train(network.model, *pick(train_, RECIPE["images"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as new:
            save_file(network.model.state_dict(), new)
    print(
        f"{path}: {accuracy(network.model, *pick(test, options.test_images)):.2%} of the test images",
        flush=True,
    )


def pick(data: Images, number: int) -> tuple[Tensor, Tensor]:
    """So many images, drawn if these are not all."""
    return (data if number == len(data) else data.sample(number, seed=0)).tensors()


def train(model: LeNet, images: Tensor, labels: Tensor) -> None:
    """Gradient descent with momentum, its rate falling linearly to zero."""
    rate, batch = RECIPE["rate"], RECIPE["batch"]
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=RECIPE["momentum"])
    steps, step = RECIPE["epochs"] * -(-len(images) // batch), 0
    model.train()
    for epoch in range(RECIPE["epochs"]):
        start, total = time.perf_counter(), 0.0
        for chosen in torch.randperm(len(images)).split(batch):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - step / steps)
            loss = functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
            step += 1
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total / len(images):.4f}, {seconds:.0f} s", flush=True)
    model.eval()


def accuracy(model: LeNet, images: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        found = torch.cat([model(part).argmax(1) for part in images.split(500)])
    return float((found == labels).double().mean())


if __name__ == "__main__":
    main()
