"""What to try next: Optuna's tree-structured Parzen estimator, from what was found so far."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .. import _rng
from ..integrations import require
from .space import Choices, Space


class Tried(NamedTuple):
    """A trial that has its area."""

    number: int
    choices: Choices
    area: float


def draw(space: Space, number: int, before: Sequence[Tried]) -> Choices:
    """What the trial of this number tries; it depends on the numbers and results of those before alone.

    Raises:
        MissingExtraError: Optuna is not installed: ``pip install 'shapleaf[search]'``.

    >>> import torch, shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    >>> space = Space(sl.Tuning(), sl.trace(model, torch.zeros(1, 3)))
    >>> draw(space, 0, [])
    {'last': 'Epsilon', '0-0.3': 'Epsilon', 'absolute': 'sample'}
    >>> draw(space, 9, []) == draw(space, 9, [])
    True
    """
    if number < len(space.first):
        return space.first[number]
    optuna: Any = require("optuna", "search")
    seed = int(_rng.stream(space.settings.seed, "tune", number).integers(2**32))
    with _silent(optuna):
        # What a gamma is for depends on the rule: groups are the parameters that are drawn together.
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=False)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for one in sorted(before):
            made = optuna.trial.create_trial(
                params=dict(one.choices), distributions=space.distributions(one.choices), value=one.area
            )
            study.add_trial(made)
        return space.draw(study.ask())


@contextlib.contextmanager
def _silent(optuna: Any) -> Iterator[None]:
    """Without Optuna's messages, of which options are experimental among them."""
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(loud)
