"""cycle: prune and retrain, again and again, in a folder that survives the process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from .. import _context, _rng
from .._progress import progress
from ..data import Batches, batches
from ..errors import DataError
from ..records.cycle import Cycle, Point
from ..weights import nonzeros
from . import checkpoints
from .augmentation import Augmentation
from .examples import Examples
from .methods import METHODS, Method, holding
from .rebuilding import rebuilt, records, shaped
from .recipes import Recipe
from .spacings import chunks
from .train import train

Mode = Literal["cascade", "one-shot", "rewind"]

FILE = "cycle.safetensors"


@dataclass(frozen=True, kw_only=True, eq=False)
class Retraining:
    """How a cycle goes: how much stays when, after which steps it retrains, and how.

    Args:
        keeps: decreasing shares of the original network's parameters that stay.
        recipe: how it is retrained, each time from the start of the schedule.
        mode: ``cascade`` prunes what the last retraining left; ``one-shot`` begins with the original network
            for every retraining; ``rewind`` is a cascade that sets the weights back to early ones each time.
        retrains: how often; the ratios are cut into so many parts, and the last of each part is retrained.
            None retrains after each.
        early: for ``rewind``, the original network's weights from early in its training: a state dict or
            its file, such as a snapshot of :func:`shapleaf.train`; the recipe's ``start`` says from when.

    Raises:
        BudgetError: the ratios do not decrease within (0, 1], or are fewer than the retrains.
        DataError: no such mode, or early weights without ``rewind`` or the reverse.

    >>> settings = Retraining(keeps=(0.8, 0.6, 0.4, 0.2), recipe=Recipe(epochs=2), retrains=2)
    >>> settings.parts
    ((0.8, 0.6), (0.4, 0.2))
    """

    keeps: tuple[float, ...]
    recipe: Recipe
    mode: Mode = "cascade"
    retrains: int | None = None
    early: Mapping[str, Tensor] | str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        assert self.parts  # which checks the ratios
        if self.mode not in ("cascade", "one-shot", "rewind"):
            raise DataError(f"mode={self.mode!r}: expected 'cascade', 'one-shot' or 'rewind'.")
        if (self.mode == "rewind") != (self.early is not None):
            raise DataError("mode='rewind' sets weights back to those of early=, a state dict or its file.")

    @property
    def parts(self) -> tuple[tuple[float, ...], ...]:
        """The keep ratios from one retraining to the next."""
        return chunks(self.keeps, self.retrains)

    def rewound(self, model: nn.Module) -> nn.Module | None:
        """A copy of the original network with the early weights; None without any.

        Raises:
            DataError: they belong to another network.
        """
        if self.early is None:
            return None
        state = dict(self.early) if isinstance(self.early, Mapping) else checkpoints.read(self.early)
        early = _context.copied(model)
        try:
            early.load_state_dict(state)
        except RuntimeError as error:
            raise DataError(f"early= holds the weights of another network: {error}") from error
        return early


def cycle(  # noqa: PLR0913 - the parts of an experiment
    model: nn.Module,
    method: Method | str,
    settings: Retraining,
    data: Any,
    *,
    sample: Any,
    path: str | os.PathLike[str],
    net: str = "0",
    seed: int = 0,
) -> Cycle:
    """Prune a network and retrain it, again and again; the network itself stays as it is.

    Every retraining has a fresh optimizer, the whole schedule, and an order of examples that depends on the
    seed and its number alone, so that all methods see the same batches; so does ``"control"``, which
    retrains without pruning. The folder holds the record, what each step pruned and the weights of each
    retrained network. A cycle that was killed goes on there, and ends as one that was not; one that is
    finished is read.

    Args:
        model: the trained network.
        method: a name of ``shapleaf.retraining.METHODS``, or a ``WeightPruning``, a ``FilterPruning`` or one
            of your own.
        settings: how much stays when, and how it is retrained.
        data: what it is retrained on, as for :func:`shapleaf.train`.
        sample: batches that decide what is pruned, best held out from training.
        path: the folder.
        net: a name for the network, where several are compared.
        seed: names every random draw.

    Raises:
        BudgetError: so few parameters cannot be reached; nothing is trained.
        DataError: data are unusable, or the folder belongs to another cycle.
        CriterionError: the loss is no longer finite; what was done before is in the folder.

    >>> import tempfile, torch
    >>> model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> inputs = torch.randn(64, 2)
    >>> data = inputs, (inputs[:, 0] > 0).long()
    >>> settings = Retraining(keeps=(0.7, 0.4), recipe=Recipe(epochs=2, batch=16))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = cycle(model, "FT", settings, data, sample=data, path=folder)
    ...     [round(one.removed, 2) for one in made.candidates(model, folder)]
    [0.3, 0.61]
    """
    chosen = METHODS[method] if isinstance(method, str) else method
    held = Batches(tuple(batches(sample, labelled=False)))
    dense = nonzeros(model)
    chosen.check(model, round(settings.parts[-1][-1] * dense), held)
    run = _Run(model, chosen, settings, data, held, Path(path), seed)
    run.begin(Cycle(method=chosen.name, mode=settings.mode, net=net, seed=int(seed), dense=dense))
    with progress(f"{chosen.name}", len(settings.parts)) as step:
        for part in range(len(settings.parts)):
            run.part(part)
            step(f"keep {settings.parts[part][-1]:.3g}")
    return run.cycle


@dataclass(frozen=True)
class _Later:
    """An augmentation in the epochs after some that are over: each retraining sees images of its own."""

    augment: Augmentation
    epochs: int

    def __call__(self, images: Tensor, ids: tuple[int, ...], epoch: int) -> Tensor:
        return self.augment(images, ids, epoch + self.epochs)


def _digest(model: nn.Module) -> str:
    return checkpoints.digest(*(tensor for _, tensor in _context.named_tensors(model)))


class _Run:
    """A cycle on its way; all it needs to go on is in its folder."""

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        settings: Retraining,
        data: Any,
        sample: Batches,
        path: Path,
        seed: int,
    ) -> None:
        self.model, self.method, self.settings = model, method, settings
        self.data, self.sample, self.path, self.seed = data, sample, path, seed
        self.early = settings.rewound(model)
        self.cycle = Cycle(method=method.name, mode=settings.mode)
        self.current: tuple[int, nn.Module] | None = None

    def begin(self, new: Cycle) -> None:
        """A new cycle, or the one in the folder."""
        told = self._told()
        self.cycle = replace(new, settings=told)
        if not (self.path / FILE).exists():
            return
        found = Cycle.load(self.path / FILE)
        before, now = ({"net": c.net, "seed": str(c.seed), **c.settings} for c in (found, self.cycle))
        different = [name for name in now if now[name] != before.get(name)]
        if different:
            name = different[0]
            raise DataError(
                f"{self.path} holds a cycle with other settings, {name}={before.get(name)}, "
                f"expected {now[name]}. Take another folder."
            )
        self.cycle = found

    def _told(self) -> dict[str, str]:
        settings = self.settings
        examples = [tensor for batch in self.sample for tensor in _context.tensors(batch.inputs)]
        return {
            "method": repr(self.method),
            "mode": settings.mode,
            "keeps": ", ".join(f"{keep:.6g}" for keep in settings.keeps),
            "retrains": str(len(settings.parts)),
            "recipe": repr(settings.recipe),
            "early": "none" if self.early is None else _digest(self.early),
            "data": Examples(self.data).name,
            "sample": checkpoints.digest(*examples),
            "weights": _digest(self.model),
        }

    def part(self, number: int) -> None:
        """Prune on to the part's last ratio and retrain, or what of it is not done yet."""
        first = sum(len(part) for part in self.settings.parts[:number])
        last = first + len(self.settings.parts[number]) - 1
        folder, start = self.path / f"retrain-{last:03d}", f"retrain-{last:03d}/start.safetensors"
        if len(self.cycle.points) <= last:
            model = self._pruned(first, last)
            checkpoints.write(model, self.path / start)
            self.cycle.save(self.path / FILE)
        elif not self.cycle.points[last].weights:
            model = rebuilt(self.model, self.cycle, last, self.path, start)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            return
        self._retrain(model, number, last, folder)
        self.current = (last, model)
        shutil.rmtree(folder)

    def _before(self, first: int) -> nn.Module:
        """What a part begins with."""
        if first == 0 or self.settings.mode == "one-shot":
            return _context.copied(self.model)
        if self.current is not None and self.current[0] == first - 1:
            return self.current[1]
        return rebuilt(self.model, self.cycle, first - 1, self.path)

    def _pruned(self, first: int, last: int) -> nn.Module:
        model, points = self._before(first), self.cycle.points[:first]
        begin = first if self.settings.mode == "one-shot" else 0
        for place in range(first, last + 1):
            keep = self.settings.keeps[place]
            seed = int(_rng.stream(self.seed, "prune", place).integers(2**31))
            model, record = self.method.prune(model, round(keep * self.cycle.dense), self.sample, seed)
            file = "" if record is None else f"{place:03d}.record.safetensors"
            if record is not None:
                record.save(self.path / file)
            # What was zero in the original network, such as a bias, may have been trained since.
            removed = max(0.0, 1 - nonzeros(model) / self.cycle.dense)
            points = (
                *points,
                Point(keep=keep, removed=removed, retrained=place == last, record=file, first=begin),
            )
        self.cycle = replace(self.cycle, points=points)
        # Kept weights go back, and what compensation had given them goes with it.
        return model if self.early is None else shaped(self.early, self.cycle, last, self.path)

    def _retrain(self, model: nn.Module, number: int, place: int, folder: Path) -> None:
        recipe, point = self.settings.recipe, self.cycle.points[place]
        if recipe.augment is not None:
            recipe = replace(recipe, augment=_Later(recipe.augment, number * recipe.epochs))
        seed = int(_rng.stream(self.seed, "retrain", number).integers(2**31))
        hold = holding(records(self.cycle, place, self.path))
        training = train(model, self.data, recipe, hold=hold, seed=seed, path=folder)
        file = f"{place:03d}.weights.safetensors"
        checkpoints.write(model, self.path / file)
        done = replace(point, loss=training.losses[-1], batches=training.batches, weights=file)
        points = self.cycle.points
        self.cycle = replace(self.cycle, points=(*points[:place], done, *points[place + 1 :]))
        self.cycle.save(self.path / FILE)
