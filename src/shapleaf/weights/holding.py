"""hold: masked weights are zero and stay so while the model trains; sparsified: in a copy."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from .. import _context
from ..errors import PlanError, StaleGraphError
from ..records import Masks


def sparsified(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy of a model in which the masked weights are zero, and the others have their factors.

    Raises:
        StaleGraphError: the masks were made for another model.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> sparse = sparsified(model, sl.sparsify(model, sl.Nonzeros(keep=0.5)))
    >>> sl.weights.nonzeros(sparse), sl.weights.nonzeros(model)
    (13, 26)
    """
    masks.check(model)
    copy = _context.copied(model)
    apply(copy, masks)
    return copy


def apply(model: nn.Module, masks: Masks) -> None:
    """Zero the masked weights of a model in place, and multiply the others by their factors.

    >>> import shapleaf as sl
    >>> model = nn.Linear(2, 1, bias=False)
    >>> apply(model, sl.sparsify(model, sl.Nonzeros(keep=1)))
    >>> int((model.weight == 0).sum())
    1
    """
    with torch.no_grad():
        for parameter, mask in zip(masks.check(model).values(), masks, strict=True):
            if mask.factors is not None:
                parameter.mul_(mask.multiplier().to(parameter))
            parameter.masked_fill_(~mask.keep().to(parameter.device), 0)


def hold(model: nn.Module, masks: Masks, optimizer: Optimizer | Sequence[Optimizer] | None = None) -> Hold:
    """Set the masked weights to zero in place and keep them at zero after every optimizer step.

    Whatever moves them in a step (momentum, weight decay, averages of Adam, scaled gradients of mixed
    precision) is undone at its end; forward and backward run as ever. The model gets no attribute and no
    hook, so it can be saved as it is.

    Args:
        model: the model that the masks were made for; in place. Values of the weights may be others.
        masks: what stays.
        optimizer: whose steps are followed, one or several; with None those of any optimizer.

    Returns:
        What ends it: :meth:`Hold.remove`, or the end of a ``with`` block.

    Raises:
        StaleGraphError: the masks were made for another model.
        PlanError: an optimizer has no parameter of the model that is masked, or the list of them is empty.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> held = hold(model, sl.sparsify(model, sl.Nonzeros(keep=0.5)), optimizer)
    >>> for _ in range(3):
    ...     model(torch.ones(5, 3)).square().sum().backward()
    ...     optimizer.step()
    >>> sl.weights.nonzeros(model) <= 13
    True
    >>> held.remove()
    """
    parameters = masks.check(model)
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
    if optimizers is not None and not optimizers:
        raise PlanError("there is no optimizer in the list; pass those whose steps count, or None for any.")
    mine = {id(parameter) for parameter in parameters.values()}
    for one in optimizers or ():
        if not any(id(p) in mine for group in one.param_groups for p in group["params"]):
            raise PlanError(
                f"this {type(one).__name__} has none of the masked parameters; pass the optimizer that "
                "trains this very model."
            )
    return Hold(model, masks, optimizers)


class Hold:
    """Masked weights that are kept at zero; see :func:`hold`.

    Attributes:
        model: the model.
        masks: what stays.
    """

    def __init__(self, model: nn.Module, masks: Masks, optimizers: Sequence[Optimizer] | None) -> None:
        self.model, self.masks = model, masks
        parameters = masks.check(model)
        self._before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._gone: dict[str, Tensor] = {
            mask.parameter: ~mask.keep().to(parameters[mask.parameter].device) for mask in masks
        }
        apply(model, masks)
        if optimizers is None:
            self._hooks = [register_optimizer_step_post_hook(self._after)]
        else:
            self._hooks = [one.register_step_post_hook(self._after) for one in optimizers]

    def _after(self, *_: Any) -> None:
        self.apply()

    def apply(self) -> None:
        """Set the masked weights to zero again, as after every step of the optimizer.

        Raises:
            StaleGraphError: a parameter has another shape by now.
        """
        with torch.no_grad():
            for name in self._gone:
                gone = self._gone[name]
                parameter = self.model.get_parameter(name)
                if parameter.shape != gone.shape:
                    raise StaleGraphError(
                        f"{name} has the shape {tuple(parameter.shape)}, but is held as {tuple(gone.shape)}; "
                        "remove() the hold before units are pruned."
                    )
                if gone.device != parameter.device:  # the model moved
                    gone = self._gone[name] = gone.to(parameter.device)
                parameter.masked_fill_(gone, 0)

    def remove(self, *, restore: bool = False) -> None:
        """Let go; a second time nothing happens.

        Args:
            restore: give the masked parameters the values that they had before they were held, the
                weights that stayed among them: training since then is undone. Else all stays as it is,
                zeros included.
        """
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if restore:
            with torch.no_grad():
                for name, value in self._before.items():
                    self.model.get_parameter(name).copy_(value)
        self._before = {}

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()
