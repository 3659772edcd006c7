"""Studies of pruning: methods on networks, pruned and retrained, tested on many distributions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from ..errors import DataError
from ..evaluation import Candidate, assess
from ..evaluation.curves import accuracies
from ..integrations.datasets import Images, load_data
from ..integrations.models import load_model
from ..records.cycle import Cycle
from ..records.outcomes import Outcomes
from ..records.sweep import Sweep, Value
from ..retraining import METHODS, Retraining, cycle, preset
from ..shifts import CORRUPTIONS, Distribution, GaussianNoise, Shift, UniformNoise, distributions
from .study import Study, Trial

UNPRUNED = "unpruned"
"""The trial that tests the network as it is."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Network(_Strict):
    """A trained network: its name, and what the command line takes.

    Attributes:
        name: what it is called.
        model: ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``.
        weights: a safetensors file or a torch state dict.
        num_classes: of a model from a zoo.
        early: for ``mode = "rewind"``, the file of its weights from early in training.
    """

    name: str = Field(min_length=1)
    model: str
    weights: str | None = None
    num_classes: int | None = None
    early: str | None = None


class Source(_Strict):
    """What the networks are retrained and tested on.

    Attributes:
        spec: ``digits``, ``mnist:DIR``, ``cifar10:DIR`` …
        image_size: height and width.
        mean: per channel.
        std: per channel.
        train: retrain on at most so many images.
        sample: images held out from them, which decide what is pruned.
        test: test on at most so many images.
    """

    spec: str
    image_size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    train: int | None = Field(default=None, ge=1)
    sample: int = Field(default=128, ge=1)
    test: int | None = Field(default=None, ge=1)


class Shifts(_Strict):
    """The distributions to test on, beside the clean test images.

    Attributes:
        corruptions: their names; by default as :func:`shapleaf.distributions`, all 19 of images in colour.
        severities: of each, 1 to 5.
        scale: ``cifar`` or ``imagenet``; by default as the images' size says.
        gaussian: standard deviations of Gaussian noise, pixels in 0 to 1.
        uniform: largest sizes of uniform noise.
    """

    corruptions: list[str] | None = None
    severities: list[int] = [3]
    scale: Literal["cifar", "imagenet"] | None = None
    gaussian: list[float] = []
    uniform: list[float] = []

    def of(self, images: Images) -> list[Distribution]:
        """The distributions made of some images."""
        noise: list[Shift] = [*map(GaussianNoise, self.gaussian), *map(UniformNoise, self.uniform)]
        return distributions(
            images, names=self.corruptions, severities=self.severities, scale=self.scale, noise=noise
        )


class Schedule(_Strict):
    """How networks are pruned and retrained: a preset, and what differs from it.

    Attributes:
        preset: ``minutes``, ``hours`` or ``paper``.
        network: for ``paper``, whose configuration.
        mode: ``cascade``, ``one-shot`` or ``rewind``.
        keeps: shares of the parameters that stay, decreasing.
        retrains: how often it is retrained; after each ratio if there are keeps.
        epochs: of each retraining.
        batch: examples per step.
        lr: the highest learning rate.
    """

    preset: Literal["minutes", "hours", "paper"] = "minutes"
    network: str = "cifar-resnet20"
    mode: Literal["cascade", "one-shot", "rewind"] = "cascade"
    keeps: list[float] | None = None
    retrains: int | None = None
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None

    def settings(self, early: str | None) -> Retraining:
        """The settings of a cycle."""
        found = preset(self.preset, self.network)
        given = {name: getattr(self, name) for name in ("epochs", "batch", "lr")}
        recipe = replace(found.recipe, **{name: value for name, value in given.items() if value is not None})
        keeps = found.keeps if self.keeps is None else tuple(self.keeps)
        retrains = self.retrains if self.keeps is not None or self.retrains is not None else found.retrains
        return Retraining(keeps=keeps, retrains=retrains, recipe=recipe, mode=self.mode, early=early)


class Pruning(_Strict):
    """A study of pruning: methods by seeds by networks, tested on shifted data.

    Attributes:
        name: what it is called.
        methods: names from ``shapleaf.retraining.METHODS``.
        networks: trained for the same data.
        data: what they are retrained and tested on.
        seeds: name the random draws.
        shifts: the distributions to test on.
        retraining: how networks are pruned and retrained.
        threads: of each worker; with 1, rounding is the same however many workers share the cores.
    """

    name: str = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    networks: list[Network] = Field(min_length=1)
    data: Source
    seeds: list[int] = Field(default=[0], min_length=1)
    shifts: Shifts = Shifts()
    retraining: Schedule = Schedule()
    threads: int | None = Field(default=None, ge=1)

    def study(self) -> Study:
        """Its trials: every method and the unpruned network, for every seed and network.

        Raises:
            DataError: a method, corruption or file does not exist, or two networks have one name.
            BudgetError: the ratios do not decrease.
        """
        names = [network.name for network in self.networks]
        if len(set(names)) < len(names):
            raise DataError(
                f"two networks of study {self.name!r} have one name; there are: {', '.join(names)}."
            )
        for method in self.methods:
            assert METHODS[method]  # which says what there is
        for name in self.shifts.corruptions or ():
            if name not in CORRUPTIONS:
                raise DataError(f"no corruption is named {name!r}; there are: {', '.join(CORRUPTIONS)}.")
        described = [_described(network) for network in self.networks]
        for network in self.networks:
            assert self.retraining.settings(network.early)
        trials = tuple(
            {"network": network, "method": method, "seed": seed}
            for network in described
            for seed in self.seeds
            for method in (UNPRUNED, *self.methods)
        )
        settings = self.model_dump(include={"data", "shifts", "retraining", "threads"}, exclude_none=True)
        return Study(name=self.name, run=f"{__name__}:run", trials=trials, settings=settings)


def _described(network: Network) -> dict[str, Any]:
    """The network as part of a trial, with a digest of its weights: other weights are another trial."""
    found = network.model_dump(exclude_none=True)
    for name in ("weights", "early"):
        if name in found:
            try:
                content = Path(found[name]).read_bytes()
            except OSError as error:
                raise DataError(
                    f"{name} of network {network.name!r}: cannot read {found[name]}: {error}."
                ) from error
            found[f"{name} digest"] = hashlib.blake2b(content, digest_size=8).hexdigest()
    return found


def run(
    trial: Trial,
    folder: Path,
    *,
    data: Mapping[str, Any],
    shifts: Mapping[str, Any],
    retraining: Mapping[str, Any],
    threads: int | None = None,
) -> Sweep:
    """Prune, retrain and test a network; goes on where an earlier run in the folder was stopped.

    Args:
        trial: ``network``, ``method``, ``seed``.
        folder: for the cycle and the outcomes.
        data: of an ``Source``.
        shifts: of a ``Shifts``.
        retraining: of a ``Schedule``.
        threads: of this process while it runs; None leaves them.

    Raises:
        ShapleafError: as :func:`shapleaf.cycle` and :func:`shapleaf.assess`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        source = Source(**data)
        test = _loaded(source, "test")
        candidates, keeps = _candidates(trial, folder, source, Schedule(**retraining))
        wanted = Shifts(**shifts).of(_at_most(test, source.test))
        outcomes = assess(candidates, wanted, path=folder / "outcomes.safetensors", classes=test.classes)
    finally:
        torch.set_num_threads(before)
    return Sweep.of("", _rows(trial, outcomes, keeps), outcomes)


def _candidates(
    trial: Trial, folder: Path, source: Source, schedule: Schedule
) -> tuple[list[Candidate], list[float]]:
    """The models that a trial tests, and which share of each was asked for."""
    network, method, seed = trial["network"], trial["method"], trial["seed"]
    net = f"{network['name']}, seed {seed}"
    model = load_model(
        network["model"], weights=network.get("weights"), num_classes=network.get("num_classes")
    )
    if method == UNPRUNED:
        return [Candidate(name=f"{UNPRUNED} net {net}", model=model, net=net, role="reference")], [1.0]
    train = _loaded(source, "train")
    sample = train.sample(source.sample, 0)
    rest = _at_most(train.without(sample.ids), source.train)
    made = cycle(model, method, schedule.settings(network.get("early")), rest.tensors(),
                 sample=sample.batches(), path=folder / "cycle", net=net, seed=seed)  # fmt: skip
    return made.candidates(model, folder / "cycle"), _keeps(made)


def _keeps(made: Cycle) -> list[float]:
    return [point.keep for point in made.points if point.weights]


def _loaded(source: Source, split: Literal["train", "test"]) -> Images:
    return load_data(source.spec, split=split, image_size=source.image_size, mean=source.mean, std=source.std)


def _at_most(images: Images, most: int | None) -> Images:
    return images if most is None or most >= len(images) else images.sample(most, 0)


def _rows(trial: Trial, outcomes: Outcomes, keeps: list[float]) -> list[dict[str, Value]]:
    keep = dict(zip((one.name for one in outcomes.subjects), keeps, strict=True))
    removed = {one.name: one.removed for one in outcomes.subjects}
    rows: list[dict[str, Value]] = []
    for one in accuracies(outcomes):
        seen = outcomes[one.distribution]
        rows.append(
            {
                "network": trial["network"]["name"],
                "method": trial["method"],
                "seed": trial["seed"],
                "keep": keep[one.subject],
                "removed": removed[one.subject],
                "distribution": one.distribution,
                "family": seen.family,
                "nominal": seen.nominal,
                "accuracy": one.value,
                "low": one.low,
                "high": one.high,
                "examples": seen.examples,
            }
        )
    return rows
