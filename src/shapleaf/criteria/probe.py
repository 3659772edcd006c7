"""What a criterion is, and what it gets to see."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import CriterionError
from ..game.game import Estimate
from ..game.layer import LayerGame
from ..linear import Linear
from ..records import Group


class Needs(enum.Flag):
    """What a criterion reads; :func:`shapleaf.attribute` runs only the passes that are needed.

    >>> both = Needs.ACTIVATION | Needs.GRADIENT
    >>> Needs.GRADIENT in both, Needs.GAME in both, bool(Needs.NOTHING)
    (True, False, False)
    """

    NOTHING = 0
    ACTIVATION = enum.auto()
    GRADIENT = enum.auto()
    MASK_GRADIENT = enum.auto()
    GAME = enum.auto()
    CONSUMERS = enum.auto()
    LAYERS = enum.auto()
    CONDUCTANCE = enum.auto()
    RESCALED = enum.auto()


OF_LAYERS = Needs.CONSUMERS | Needs.LAYERS
"""What is measured of layers, not of examples: one score per unit, with nothing to aggregate."""


class Elimination(NamedTuple):
    """The outcome of taking units away one after the other.

    Attributes:
        values: ``(units,)``, what each cost when it went; never less than what went before it.
        curve: rows (units removed, cost so far, 0), from none to all.

    >>> curve = torch.tensor([[0, 0, 0], [1, 0.1, 0], [2, 2.1, 0]])
    >>> Elimination(torch.tensor([0.1, 2.0]), curve).values.argmin()
    tensor(0)
    """

    values: Tensor
    curve: Tensor


@dataclass(slots=True, eq=False)
class Consumer:
    """What one layer reads of a group, as a regression: its output from its inputs.

    Attributes:
        gram: second moments of the inputs about their mean, summed over places and averaged over examples,
            ``(features, features)``, in double precision.
        weight: ``(features, outputs)``.
        units: the unit that each feature belongs to, -1 where it belongs to none of the group.
        felt: how much the loss feels of an error of each output, ``(outputs,)``; ones without labels.

    >>> one = Consumer(torch.eye(3), torch.ones(3, 2), torch.tensor([0, 1, -1]), torch.ones(2))
    >>> float((one.gram @ one.weight * one.weight).sum())  # its output's variance
    6.0
    """

    gram: Tensor
    weight: Tensor
    units: Tensor
    felt: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with weights as it ran, reading units of a group, on some examples.

    Attributes:
        call: the name of the call.
        step: which run under this name it was, of one recurrence.
        linear: what it read and multiplied by.
        units: the unit of every input channel, ``(groups, channels)``, -1 where it is none of the group's.
        ids: number of each example in the whole data.

    >>> linear = Linear(torch.ones(2, 6), torch.ones(4, 6))  # three features of each of two units
    >>> Layer("b:linear#0", 0, linear, torch.tensor([[0, 0, 0, 1, 1, 1]]), (0, 1)).owners.tolist()
    [[0, 0, 0, 1, 1, 1]]
    """

    call: str
    step: int
    linear: Linear
    units: Tensor
    ids: tuple[int, ...]

    @property
    def owners(self) -> Tensor:
        """The unit of every feature, ``(groups, features)``."""
        features = self.linear.matrix().shape[1]
        return self.units.repeat_interleave(features // self.units.shape[1], 1)


@runtime_checkable
class Criterion(Protocol):
    """Scores the units of one group; configuration only, no model and no data.

    ``score`` returns ``(units,)`` if it needs nothing or layers, else ``(examples, units)``, or an
    :class:`~shapleaf.game.Estimate`; an :class:`Elimination` if it needs consumers; higher means needed
    more. A criterion that draws at random uses
    ``probe.seed``. A user's own needs no base class:

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Peak:
    ...     needs: ClassVar[Needs] = Needs.ACTIVATION
    ...     def score(self, probe: "Probe") -> Tensor:
    ...         return probe.activation.abs().amax(-1)
    >>> isinstance(Peak(), Criterion)
    True
    """

    needs: ClassVar[Needs]

    def score(self, probe: Probe) -> Tensor | Estimate | Elimination: ...


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """One group on some examples, as far as the criterion's ``needs`` allow.

    Attributes:
        group: the group.
        model: the model.
        seed: what random draws are named by, together with the group.
        ids: number of each example in the whole data; empty without data.

    A criterion meets it in ``score``; see :class:`Criterion`.

    >>> group = Group(name="mine", size=2, slices=(), sites=())
    >>> Probe(group, nn.Linear(2, 2), 0, Needs.NOTHING).activation
    Traceback (most recent call last):
        ...
    shapleaf.errors.CriterionError: the criterion read probe.activation but declares Needs.NOTHING; add ...
    """

    group: Group
    model: nn.Module
    seed: int
    needs: Needs
    ids: tuple[int, ...] = ()
    reads: Sequence[tuple[Tensor, Tensor]] = ()
    activation_gradients: Sequence[Tensor] = ()
    mask_gradients: Tensor | None = None
    play: Callable[[], LayerGame] | None = None
    regress: Callable[[], list[Consumer]] | None = None
    run: Callable[[], Iterator[Layer]] | None = None
    contrasts: Tensor | None = None

    @property
    def activation(self) -> Tensor:
        """What the consumers read, ``(examples, units, positions)``, each tensor once."""
        self._allow(Needs.ACTIVATION, "activation")
        return self._positions([read for read, _ in self.reads])

    @property
    def gradient(self) -> Tensor:
        """Gradient of each example's own cost with respect to the activation, in its shape.

        The cost is the loss, or what the criterion's ``target`` makes of the output: it rises when a unit
        that is needed is removed.
        """
        self._allow(Needs.GRADIENT, "gradient")
        return self._positions(self.activation_gradients)

    @property
    def places(self) -> Tensor:
        """Minus activation times gradient, summed within each place, ``(examples, units, places)``.

        Places are tokens or pixels; at each, a head has all its dimensions.
        """
        self._allow(Needs.ACTIVATION, "places")
        self._allow(Needs.GRADIENT, "places")
        parts = []
        for (read, index), gradient in zip(self.reads, self.activation_gradients, strict=True):
            passed = -read * gradient
            labels = index.to(read.device).reshape([1] * (read.ndim - 1 - index.ndim) + [*index.shape])
            own = [axis for axis, size in enumerate(labels.shape, 1) if size > 1]
            passed = (
                passed.movedim(own, [*range(read.ndim - len(own), read.ndim)]) if own else passed[..., None]
            )
            flat = passed.reshape(len(self.ids), -1, labels.numel())
            units = labels.reshape(-1).where(labels.reshape(-1) >= 0, self.group.size)
            sums = flat.new_zeros(*flat.shape[:2], self.group.size + 1).index_add_(2, units, flat)
            parts.append(sums[..., :-1].transpose(1, 2))
        return torch.cat(parts, 2)

    @property
    def mask_gradient(self) -> Tensor:
        """Gradient of each example's own cost with respect to the unit's mask, ``(examples, units)``."""
        self._allow(Needs.MASK_GRADIENT, "mask_gradient")
        assert self.mask_gradients is not None
        return self.mask_gradients

    @property
    def game(self) -> LayerGame:
        """The set function of the group: costs per example of any coalition of units."""
        self._allow(Needs.GAME, "game")
        assert self.play is not None
        return self.play()

    @property
    def conductance(self) -> Tensor:
        """What of the cost's rise from a baseline input passes through a unit, ``(examples, units)``."""
        self._allow(Needs.CONDUCTANCE, "conductance")
        assert self.contrasts is not None
        return self.contrasts

    @property
    def rescaled(self) -> Tensor:
        """The same from a baseline, absent units or an input, by the Rescale rule, ``(examples, units)``."""
        self._allow(Needs.RESCALED, "rescaled")
        assert self.contrasts is not None
        return self.contrasts

    @property
    def consumers(self) -> list[Consumer]:
        """The layers that read the group."""
        self._allow(Needs.CONSUMERS, "consumers")
        assert self.regress is not None
        return self.regress()

    @property
    def layers(self) -> Iterator[Layer]:
        """The layers with weights that read the group, as they run, batch by batch."""
        self._allow(Needs.LAYERS, "layers")
        assert self.run is not None
        return self.run()

    def incoming(self) -> Tensor:
        """The weights that produce each unit, ``(units, weights)``; biases and norms excluded.

        A weight that produces and reads the units at once (tied) counts only where there is no other.

        Raises:
            CriterionError: the group has no weights.
        """
        readers = {(site.weight, site.dim) for site in self.group.sites}
        parameters = dict(self.model.named_parameters())
        owned = [p for p in self.group.slices if p.tensor in parameters and parameters[p.tensor].ndim > 1]
        rows = []
        for piece in [p for p in owned if (p.tensor, p.dim) not in readers] or owned:
            weight = parameters[piece.tensor].detach()
            mine = weight.index_select(piece.dim, piece.index.reshape(-1).to(weight.device))
            rows.append(mine.movedim(piece.dim, 0).reshape(self.group.size, -1))
        if not rows:
            raise CriterionError(f"group {self.group.name} has no incoming weights to score.")
        return torch.cat(rows, 1)

    def _positions(self, tensors: Sequence[Tensor]) -> Tensor:
        parts = []
        for tensor, (_, index) in zip(tensors, self.reads, strict=True):
            flat = index.to(tensor.device).expand(tensor.shape[1:]).reshape(-1)
            order = torch.argsort(flat, stable=True)[int((flat < 0).sum()) :]
            part = tensor.flatten(1)[:, order].unflatten(1, (self.group.size, -1))
            # Further places of an example may lie behind it along the first axis (tokens in rows).
            parts.append(part.unflatten(0, (len(self.ids), -1)).transpose(1, 2).flatten(2))
        return torch.cat(parts, 2)

    def _allow(self, need: Needs, name: str) -> None:
        if need not in self.needs:
            raise CriterionError(
                f"the criterion read probe.{name} but declares {self.needs}; "
                f"add Needs.{need.name} to its needs."
            )
