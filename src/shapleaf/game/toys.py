"""Games small enough to know the answer, to check estimators against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import CriterionError


class FunctionGame:
    """Any differentiable function of the masks, played as a game.

    Args:
        function: ``(examples, players)`` masks to ``(examples,)`` losses.
        players: number of units.
        ids: place of each example in the whole data.
        name: name of the group.
        dtype: type of masks.
        device: device of masks.

    >>> game = FunctionGame(lambda mask: (1 - mask.sum(1)) ** 2, players=2, ids=(0,))
    >>> loss, gradient = game.gradient(torch.tensor([[0.5, 0.0]]))
    >>> loss.tolist(), gradient.tolist(), game.evaluations
    ([0.25], [[-1.0, -1.0]], 3)
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        players: int,
        ids: Sequence[int],
        *,
        name: str = "toy",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.players = players
        self.ids = tuple(ids)
        self.examples = len(self.ids)
        self.name = name
        self.dtype = dtype
        self.device = torch.device(device)
        self.evaluations = 0
        self.width = 1
        self._function = function

    def loss(self, mask: Tensor) -> Tensor:
        """Loss of each example, ``(..., examples)``; counts 1 evaluation a coalition."""
        self.evaluations += mask.shape[:-2].numel()
        with torch.no_grad():
            return self._played(mask)

    def gradient(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss ``(..., examples)`` and its gradient; counts 3 evaluations a coalition."""
        self.evaluations += 3 * mask.shape[:-2].numel()
        with torch.enable_grad():
            mask = mask.detach().clone().requires_grad_()
            loss = self._played(mask)
            (gradient,) = torch.autograd.grad(loss.sum(), mask, materialize_grads=True)
        return loss.detach(), gradient

    def _played(self, mask: Tensor) -> Tensor:
        coalitions = mask.reshape(-1, *mask.shape[-2:])
        return torch.stack([self._function(one) for one in coalitions]).reshape(mask.shape[:-1])


class UnanimityGame(FunctionGame):
    """Sum of unanimity games: a coalition earns ``worth`` if all of its members are present.

    ``v(S)`` is the sum of the worths of the coalitions inside *S*; real masks multiply, so that
    the loss ``-v`` is its own multilinear extension. Every game of *n* players is such a sum.

    Args:
        coalitions: the members of each coalition.
        worth: what each coalition earns in each example, ``(examples, coalitions)``.
        players: number of units.
        ids: place of each example in the whole data; 0, 1, 2 … by default.
        name: name of the group.

    Raises:
        CriterionError: a coalition has a member twice or one that does not play,
            or their number is not that of the worths.

    >>> UnanimityGame([(0,), (0, 1)], torch.tensor([[1.0, 6.0]]), players=3).shapley().tolist()
    [[4.0, 3.0, 0.0]]
    """

    def __init__(
        self,
        coalitions: Sequence[Sequence[int]],
        worth: Tensor,
        players: int,
        *,
        ids: Sequence[int] | None = None,
        name: str = "unanimity",
    ) -> None:
        if worth.ndim != 2 or worth.shape[1] != len(coalitions):
            raise CriterionError(
                f"worth must be (examples, coalitions) = (…, {len(coalitions)}), "
                f"received {tuple(worth.shape)}."
            )
        for members in coalitions:
            if len(set(members)) < len(members) or not set(members) <= set(range(players)):
                raise CriterionError(
                    f"coalition {tuple(members)} must name each member once, out of 0 to {players - 1}."
                )
        self.coalitions = tuple(tuple(members) for members in coalitions)
        self.worth = worth

        def function(mask: Tensor) -> Tensor:
            complete = [mask[:, list(members)].prod(1) for members in self.coalitions]
            return -sum(
                (w * c for w, c in zip(worth.T, complete, strict=True)), torch.zeros_like(worth[:, 0])
            )

        super().__init__(
            function, players, _ids(ids, worth), name=name, dtype=worth.dtype, device=worth.device
        )

    def shapley(self) -> Tensor:
        """Exact values ``(examples, players)``: members share what their coalition earns equally."""
        values = self.worth.new_zeros(self.examples, self.players)
        for members, worth in zip(self.coalitions, self.worth.T, strict=True):
            for member in members:
                values[:, member] += worth / len(members)
        return values


class QuadraticGame(FunctionGame):
    """A linear readout under squared error, for any number of players.

    The prediction is ``bias + sum_j m_j contributions_j``, the loss its squared distance from
    the target.

    Args:
        contributions: what each unit adds to each output, ``(examples, players, outputs)``.
        target: ``(examples, outputs)``.
        bias: ``(outputs,)``.
        ids: place of each example in the whole data; 0, 1, 2 … by default.
        name: name of the group.

    >>> one = torch.ones(1, 1)
    >>> QuadraticGame(torch.tensor([[[1.0], [0.5]]]), target=2 * one, bias=torch.zeros(1)).shapley().tolist()
    [[2.5, 1.25]]
    """

    def __init__(
        self,
        contributions: Tensor,
        target: Tensor,
        bias: Tensor,
        *,
        ids: Sequence[int] | None = None,
        name: str = "quadratic",
    ) -> None:
        self.contributions, self.target, self.bias = contributions, target, bias

        def function(mask: Tensor) -> Tensor:
            prediction = bias + torch.einsum("en,eno->eo", mask, contributions)
            return (target - prediction).square().sum(1)

        super().__init__(
            function,
            contributions.shape[1],
            _ids(ids, target),
            name=name,
            dtype=contributions.dtype,
            device=contributions.device,
        )

    def shapley(self) -> Tensor:
        """Exact values ``(examples, players)``: ``<contributions_i, 2 target - prediction - bias>``."""
        prediction = self.bias + self.contributions.sum(1)
        return torch.einsum("eno,eo->en", self.contributions, 2 * self.target - prediction - self.bias)


class TableGame(FunctionGame):
    """A game given by the loss of every coalition; real masks give its multilinear extension.

    Args:
        losses: ``(examples, 2 ** players)``; unit *i* is present in column *c* if bit *i* of *c* is 1.
        ids: place of each example in the whole data; 0, 1, 2 … by default.
        name: name of the group.

    Raises:
        CriterionError: the number of columns is not a power of two.

    >>> game = TableGame(torch.tensor([[10.0, 4.0, 8.0, 0.0]]))  # nobody, unit 0, unit 1, both
    >>> game.loss(torch.tensor([[1.0, 0.0]])).item(), game.loss(torch.tensor([[0.5, 0.5]])).item()
    (4.0, 5.5)
    """

    def __init__(self, losses: Tensor, *, ids: Sequence[int] | None = None, name: str = "table") -> None:
        columns = losses.shape[1] if losses.ndim == 2 else 0
        if columns.bit_count() != 1:
            raise CriterionError(f"losses must be (examples, 2 ** players), received {tuple(losses.shape)}.")
        players = columns.bit_length() - 1

        def function(mask: Tensor) -> Tensor:
            table = losses
            for unit in reversed(range(players)):  # the highest bit splits the table in halves
                absent, present = table.chunk(2, dim=1)
                table = torch.lerp(absent, present, mask[:, unit, None])
            return table[:, 0]

        super().__init__(
            function, players, _ids(ids, losses), name=name, dtype=losses.dtype, device=losses.device
        )


def _ids(ids: Sequence[int] | None, rows: Tensor) -> Sequence[int]:
    """The ids given, one per row, or the rows' own numbers.

    Raises:
        CriterionError: there are more or fewer ids than rows.
    """
    if ids is not None and len(ids) != len(rows):
        raise CriterionError(f"{len(ids)} ids for {len(rows)} examples; give one per example.")
    return range(len(rows)) if ids is None else ids
