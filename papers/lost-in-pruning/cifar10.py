"""What pruned networks keep and lose on CIFAR-10: prune potential, excess error, noise, informative pixels.

    python papers/lost-in-pruning/cifar10.py --network resnet20 --preset hour

Every method prunes and retrains the network again and again. Then all networks are measured side by side.
What is finished is kept in the cache, so that a run that was stopped goes on; several processes may share
the chains of one cache (``--only chains --methods WT``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from networks import (
    CACHE,
    HERE,
    TRAINED,
    Data,
    Preset,
    assessed,
    command,
    data,
    network,
    positive,
    presets,
    separate,
)
from page import write
from torch import Tensor, nn

import shapleaf as sl
from shapleaf.shifts import CORRUPTIONS

METHODS = ("WT", "SiPP", "FT", "PFP", "Shapley", "Shapley+refit", "control")
SHOWN = (0.15, 0.46, 0.69, 0.80, 0.95)
"""The shares removed whose networks are looked at more closely, as in the paper."""


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    study = Study(options)
    if options.only != "measures":
        for net in range(options.nets):
            for method in options.methods:
                print(study.chain(method, net), flush=True)
    if options.only != "chains":
        write(study.measured(), study.title, study.command, options.out, study.cache)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet20", choices=("resnet20", "vgg16"))
    parser.add_argument("--preset", default="hour", choices=("minutes", "hour", "paper"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--nets", type=positive, default=1, help="independently trained networks")
    parser.add_argument(
        "--corruptions", nargs="+", default=CORRUPTIONS, choices=CORRUPTIONS, help="to test on"
    )
    parser.add_argument("--only", choices=("chains", "measures"), help="a part of the work")
    parser.add_argument("--data", type=Path, default=TRAINED, help="folder with the images and the weights")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is unfinished, and large")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--threads", type=positive, default=1)
    return parser.parse_args(arguments)


class Study:
    """The chains of all methods, and what is measured of them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.chosen: Preset = presets(options.network)[options.preset]
        self.cache: Path = options.cache / options.preset
        self.title = f"{options.network}-{options.preset}"
        self.command = command("cifar10.py", options, parse([]))
        self.data: Data = data(options.network, options.data, self.chosen)
        self._dense: dict[int, nn.Module] = {}

    def dense(self, net: int) -> nn.Module:
        """The network before pruning."""
        if net not in self._dense:
            made = network(self.options.network, net, self.options.data, self.chosen, self.cache)
            self._dense[net] = made
        return self._dense[net]

    def chain(self, method: str, net: int) -> sl.Cycle:
        """One method's cycle of pruning and retraining, as far as it is not finished."""
        return sl.cycle(
            self.dense(net),
            method,
            self.chosen.retraining,
            self._train,
            sample=self.data.sample.batches(),
            path=self._folder(method, net),
            net=str(net),
        )

    @cached_property
    def _train(self) -> tuple[Tensor, Tensor]:
        """The training images, decoded once for all chains."""
        return self.data.train.tensors()

    def _folder(self, method: str, net: int) -> Path:
        return self.cache / f"{self.options.network}-{net}-{method}"

    def pruned(self) -> Iterator[sl.Candidate]:
        """The networks of all chains."""
        for net in range(self.options.nets):
            for method in self.options.methods:
                yield from self._candidates(method, net)

    def _candidates(self, method: str, net: int) -> list[sl.Candidate]:
        return self.chain(method, net).candidates(self.dense(net), self._folder(method, net))

    def others(self) -> list[sl.Candidate]:
        """The networks before pruning, and the yardstick."""
        found = [
            sl.Candidate(name=f"dense {net}", model=self.dense(net), net=str(net), role="reference")
            for net in range(self.options.nets)
        ]
        other = separate(self.options.network, self.options.data, self.chosen, self.cache)
        return [*found, sl.Candidate(name="separate", model=other, net="separate", role="separate")]

    def shown(self, methods: tuple[str, ...]) -> list[sl.Candidate]:
        """Of the first network's chains those nearest to the shares that are shown."""
        found = []
        for method in methods:
            chain = self._candidates(method, 0)
            near = [min(chain, key=lambda one: abs(one.removed - share)) for share in SHOWN]
            found += list({one.name: one for one in near}.values())
        return found

    def measured(self) -> sl.Robustness:
        """Everything that is measured."""
        others = self.others()
        outcomes = assessed(
            [*others, *self.pruned()],
            sl.distributions(self.data.test, names=self.options.corruptions),
            self.cache / f"{self.options.network}-outcomes",
        )
        test, near = self.data.test, [others[0], others[-1]]  # those of the first network's chains
        few = test.sample(min(self.chosen.noise_images, len(test)), seed=1)
        similarity = sl.noise_similarity(
            [*near, *self.shown(self.options.methods)],
            few.batches(),
            epsilons=self.chosen.epsilons,
            draws=self.chosen.draws,
        )
        features = sl.heat_map(
            [*near, *self.shown(self.options.methods[:1])],
            test.sample(min(self.chosen.feature_images, len(test)), seed=2).tensors(),
            mode=self.chosen.ordering,
        )
        return sl.robustness(outcomes, similarity=similarity, features=features)


if __name__ == "__main__":
    main()
