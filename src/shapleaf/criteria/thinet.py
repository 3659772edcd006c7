"""ThiNet: the units without which the next layers' outputs change least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._rng import stream
from ..errors import CriterionError
from .probe import Layer, Needs, Probe


@dataclass(frozen=True)
class ThiNet:
    """The order in which units go so that what reads them loses least (Luo et al. 2017).

    At random places of random outputs of random examples, what each unit adds to the layers that read
    it is gathered. Units go one after the other: always the one with which the sum of all that has gone
    is smallest, in squares over the places. Several layers that read a group count alike.

    The score is the share of the group that is gone once the unit is: it ranks within a group and says
    nothing across groups, so that ``Global()`` does what ``Uniform()`` does.

    Args:
        samples: places drawn for each layer that reads the group, and for each step of a recurrent one.

    >>> import shapleaf as sl
    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 4, bias=False), torch.nn.Linear(4, 1))
    >>> _ = model[0].weight.data.fill_(1.0)
    >>> _ = model[1].weight.data.copy_(torch.tensor([[0.1, 10.0, 0.001, 1.0]]))
    >>> data = torch.ones(5, 1)
    >>> sl.attribute(model, sl.trace(model, data), data, ThiNet()).values["0"].tolist()
    [0.5, 1.0, 0.25, 0.75]
    """

    samples: int = 100
    needs: ClassVar[Needs] = Needs.LAYERS

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise CriterionError(f"ThiNet(samples=...) must be at least 1, received {self.samples}.")

    def score(self, probe: Probe) -> Tensor:
        """Shares ``(units,)``, above 0, up to 1 for the unit that goes last.

        Raises:
            CriterionError: no layer with weights reads the group.
        """
        found: dict[str, list[Tensor]] = {}
        for layer in probe.layers:
            found.setdefault(layer.call, []).extend(self._additions(layer, probe))
        if not found:
            raise CriterionError(
                f"group {probe.group.name} is read by no layer with weights, whose outputs could change; "
                "use another criterion, such as Taylor()."
            )
        return _order(torch.cat([_scaled(torch.stack(parts)) for parts in found.values()]))

    def _additions(self, layer: Layer, probe: Probe) -> Iterator[Tensor]:
        """What each unit adds at each place drawn that lies in these examples, ``(units,)``."""
        linear, group = layer.linear, probe.group
        drawn = stream(probe.seed, "thinet", group.name, layer.call, layer.step).random((self.samples, 3))
        matrix = linear.matrix().double()
        each, outputs = len(linear.input) // len(layer.ids), matrix.shape[2]
        for example, place, output in drawn.tolist():
            number = probe.ids[int(example * len(probe.ids))]
            if number not in layer.ids:
                continue
            first = layer.ids.index(number) * each
            rows = linear.rows(linear.input[first : first + each]).transpose(0, 1).flatten(1, 2).double()
            part, column = divmod(int(output * outputs * len(matrix)), outputs)
            added = rows[part, int(place * rows.shape[1])] * matrix[part, :, column]
            mine = layer.owners[part] >= 0
            yield added.new_zeros(group.size).index_add(0, layer.owners[part][mine], added[mine])


def _scaled(additions: Tensor) -> Tensor:
    """In the scale of a layer's own additions."""
    return additions / additions.square().mean().sqrt().clamp_min(torch.finfo(additions.dtype).tiny)


def _order(additions: Tensor) -> Tensor:
    """The share that is gone with each unit, when always the one goes that leaves the smallest sum.

    Args:
        additions: what each unit adds at each place, ``(places, units)``.
    """
    size = additions.shape[1]
    own, gone = additions.square().sum(0), additions.new_zeros(len(additions))
    shares, left = additions.new_zeros(size), torch.ones(size, dtype=torch.bool, device=additions.device)
    for rank in range(size):
        squares = torch.where(left, own + 2 * (gone @ additions), torch.inf)
        unit = int(squares.argmin())
        shares[unit], left[unit] = (rank + 1) / size, False
        gone = gone + additions[:, unit]
    return shares
