"""scan: how the loss rises as each group alone loses its lowest-ranked units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from . import _context
from ._progress import progress
from .aggregation import Mean, State
from .data import batches
from .errors import CriterionError
from .game.game import without
from .game.layer import LayerGame
from .masking import CalibrationMean, Gates, Removal
from .records import Group, Scores


def scan(
    model: nn.Module,
    scores: Scores,
    data: Any,
    *,
    points: int = 8,
    removal: Removal | None = None,
    loss: _context.Loss = _context.cross_entropy,
) -> Scores:
    """Measure what removing the lowest-ranked units of each group really costs, group by group.

    Scores rank the units within a group; across groups they are not comparable, because each group's
    share the same total. The curves measured here are: mean rise of the loss, in its own units,
    against the number of units removed, all other groups whole. :class:`~shapleaf.Tradeoff`
    allocates by them. Costs ``points`` evaluations for each group and batch.

    Args:
        model: the model that was scored.
        scores: aggregated scores.
        data: labelled calibration batches.
        points: steps from none removed to all.
        removal: what absent units leave behind; ``CalibrationMean()`` by default, as ``FoldMean`` does.
        loss: ``f(output, target)``, one value per example.

    Returns:
        The same scores with ``curves``: group name to rows (units removed, rise of the loss, its
        standard error over examples), the first row all zeros.

    Raises:
        StaleGraphError: the scores belong to another model.
        CriterionError: the scores are per example.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph = sl.trace(model, torch.zeros(1, 3))
    >>> data = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    >>> scanned = scan(model, sl.attribute(model, graph, data, sl.Taylor()), data, points=4)
    >>> scanned.curves["0"][:, 0].tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    scores.graph.check(model)
    per_example = [name for name, values in scores.values.items() if values.ndim != 1]
    if per_example:
        raise CriterionError(f"the scores of {per_example[0]} are per example; aggregate them before a scan.")
    if points < 2:
        raise CriterionError(f"points={points}: a curve needs at least 2.")
    groups = [scores.graph[name] for name in scores.values]
    steps = {g.name: sorted({-(-g.size * k // points) for k in range(1, points + 1)}) for g in groups}
    states: dict[str, State] = {g.name: Mean().start(len(steps[g.name])) for g in groups}
    with _context.inference(model), progress("scan", len(groups)) as step:
        examples = list(batches(data, device=_context.device_of(model)))
        fill = (removal or CalibrationMean()).fill(model, Gates(groups), examples)
        for group in groups:
            game = LayerGame(model, group, examples, loss, fill)
            states[group.name].update(_rises(game, group, scores.values[group.name], steps[group.name]))
            step(group.name)
    curves = {name: _curve(steps[name], state) for name, state in states.items()}
    return replace(scores, curves=curves)


def curved(
    model: nn.Module, scores: Scores, data: Any, *, loss: _context.Loss = _context.cross_entropy
) -> Scores:
    """The scores with a curve for every group: the criterion's own, or else what :func:`scan` measures.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> data = [(torch.randn(20, 3), torch.randint(2, (20,)))]
    >>> scores = sl.attribute(model, sl.trace(model, torch.zeros(1, 3)), data, sl.OptimalBrainSurgeon())
    >>> curved(model, scores, data) is scores
    True
    """
    return scores if scores.values.keys() == scores.curves.keys() else scan(model, scores, data, loss=loss)


def _rises(game: LayerGame, group: Group, values: Tensor, steps: Sequence[int]) -> Tensor:
    """Rise of each example's loss at every step, ``(examples, steps)``."""
    order = torch.argsort(values.double(), stable=True)
    gone = torch.zeros(len(steps), group.size)
    for one, removed in zip(gone, steps, strict=True):
        one[order[:removed]] = 1
    losses = without(game, gone)
    return (losses[1:] - losses[0]).T


def _curve(steps: Sequence[int], state: State) -> Tensor:
    rise, error = state.result()
    error = torch.zeros_like(rise) if error is None else error
    rows = torch.stack([torch.tensor(steps, dtype=torch.float64), rise, error], 1)
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), rows])
