"""Mean and variance of every tensor behind a group, of which units are present at random."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from .._calls import Call, function_of, out_of_place
from .._ranks import gather
from ..errors import CriterionError
from ..masking import Gate, Gates, Masks
from .game import Estimate, Game, ends, precise
from .layer import LayerGame, even
from .moments import NoRule, contraction, rule_of
from .readout import Readout, refusal
from .suffix import Prefix, Replay, Suffix

FULL = 256
"""Outputs up to which their whole covariance is used."""

SHAPED = {f"new_{name}" for name in ("zeros", "ones", "full", "empty", "tensor")}
SHAPED |= {f"{name}_like" for name in ("zeros", "ones", "full", "empty")}
"""Functions that read the shape of a tensor only."""

HEAVIER = 4
"""How much more memory a gradient through moments takes than one through masks (measured: 3.3 to 4.8)."""


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """The variance of a tensor's elements, and how to get the covariance of its columns if that is known.

    It is stale once the tensor's memory was written to through another view.
    """

    mean: Tensor
    variance: Tensor
    covariance: Callable[[], Tensor] | None = None
    stale: bool = False


class Propagation(Replay):
    """Runs the network on means, and keeps the variance of each tensor beside it.

    The means flow through the model's own code. Calls that read the units turn the randomness of these
    into a variance, which is what subclasses say; behind them every call has a rule or is refused.

    Args:
        part: the examples and what absent units leave behind.
        mask: mean presence of every unit, ``(rows, units)``; the rows are the examples, or these several
            times over.
        readouts: the reading calls that were seen before, by name; those seen now are added.
        model: the model.
        gates: where the units are read.
        prefix: what is answered from memory.

    Raises:
        CriterionError: a call has no rule.
    """

    def __init__(
        self,
        part: Suffix,
        mask: Tensor,
        readouts: dict[str, Readout],
        model: nn.Module,
        gates: Gates,
        prefix: Prefix,
    ) -> None:
        super().__init__(model, gates, Masks({part.name: mask}, part.fill), prefix)
        self.part, self.readouts = part, readouts
        self._examples = part.examples
        self._spreads: dict[int, Spread] = {}

    @abstractmethod
    def scatter(self, readout: Readout) -> tuple[Tensor, Callable[[], Tensor]]:
        """Variance of what a call makes of the units, and how to get the covariance of its columns."""

    def spread(self, leaf: Any) -> Spread | None:
        """What is known of a tensor; None for what is not random."""
        found = self._spreads.get(id(leaf))
        return found if found is not None and found.mean is leaf else None

    def behind(
        self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run one call on means, and its rule on variances."""
        call, gates = Call(key, func, args, kwargs), self._gates.at.get(key)
        known = [found for leaf in tree_leaves((args, kwargs)) if (found := self.spread(leaf)) is not None]
        random = bool(known)
        if any(found.stale for found in known):
            raise refusal(self.part.name, key, "what it reads was written to in place through another view")
        if gates:
            if random:
                why = "what it reads depends on the units already, through another call that reads them"
                raise refusal(self.part.name, key, why)
            return self._read(call, gates)
        return (
            self._follow(call)
            if random and function_of(key) not in SHAPED
            else super().behind(key, func, args, kwargs)
        )

    def _read(self, call: Call, gates: dict[int, Gate]) -> Any:
        if call.key not in self.readouts:
            fill = (self.part.fill or {}).get((call.key, 0))
            with torch.no_grad():
                readout = Readout(call, gates, fill, self._examples, self.part.players)
            self.readouts[call.key] = readout
        out = super().behind(*call)
        variance, covariance = self.scatter(self.readouts[call.key])
        self._keep(out, variance, covariance if out.ndim == 2 else None)
        return out

    def _keep(self, mean: Tensor, variance: Tensor, covariance: Callable[[], Tensor] | None = None) -> None:
        self._spreads[id(mean)] = Spread(mean, variance, covariance)

    def _follow(self, call: Call) -> Any:
        """A call behind the units by its rule; one that writes in place writes the mean."""
        name = function_of(call.key)
        if name == "__get__":  # of an attribute, such as .T or .shape
            name = getattr(getattr(call.func, "__self__", None), "__name__", name)
        written, (_, func, args, kwargs) = None, call
        if (elsewhere := out_of_place(call)) is not None:
            written, name = call.args[0] if call.args else call.kwargs["input"], elsewhere.key
            _, func, args, kwargs = elsewhere
            fresh, variance = written.clone(), self._variance(written)
            if variance is not None:
                self._keep(fresh, variance)
            args, kwargs = tree_map(lambda leaf: fresh if leaf is written else leaf, (args, kwargs))
        rule = rule_of(name)
        if rule is None or kwargs.get("out") is not None:
            return self._unruly(call)
        try:
            out, variance = rule(func, args, kwargs, self._variance)
        except NoRule as why:
            raise refusal(self.part.name, call.key, str(why)) from None
        if written is not None:
            out = self._write(written, out)
        covariance = self._covariance(name, args, kwargs)
        for mean, spread in zip(tree_leaves(out), tree_leaves(variance), strict=True):
            self._keep(mean, spread, covariance)
        return out

    def _write(self, written: Tensor, mean: Tensor) -> Tensor:
        """Put a mean where the call wanted it; other views of that memory must not be read any more."""
        place = written.untyped_storage().data_ptr()
        for key, known in self._spreads.items():
            if known.mean is not written and known.mean.untyped_storage().data_ptr() == place:
                self._spreads[key] = replace(known, stale=True)
        return written.copy_(mean)

    def _variance(self, leaf: Any) -> Tensor | None:
        known = self.spread(leaf) if isinstance(leaf, Tensor) else None
        return None if known is None else known.variance

    def _covariance(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Tensor] | None:
        """Outputs of a linear layer are correlated, as they share what it reads."""
        first = self.spread(args[0]) if args else None
        if name in ("clone", "contiguous", "dropout", "to", "float") and first is not None:
            return first.covariance
        if name != "linear":
            return None
        read, weight, *_ = contraction(args, kwargs)
        variance = self._variance(read)
        assert variance is not None
        if variance.ndim != 2:
            return None

        def covariance() -> Tensor:
            exact = precise(weight)
            return (exact * precise(variance)[:, None]) @ exact.T

        return covariance

    def _unruly(self, call: Call) -> Any:
        """A call without a rule may still answer a question about shapes."""
        out = call.func(*call.args, **call.kwargs)
        if out is None or any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            raise refusal(self.part.name, call.key, "there is no rule for the moments of what it returns")
        return out


def expected_loss(output: Any, reader: Propagation, part: Suffix, samples: int) -> Tensor:
    """Expected loss of each row if the outputs are Gaussian, by quasi-Monte Carlo.

    Antithetic pairs of Sobol normals, the same for all rows: at least ``samples`` of them, and twice as
    many as outputs if their whole covariance is used, made to have the identity for covariance exactly,
    so that squared errors are exact. Tensors of the output are taken as independent of each other.

    Raises:
        CriterionError: no tensor of the output depends on the units, or one has more numbers than Sobol
            sequences have dimensions.
    """
    leaves, form = tree_flatten(output)
    known = {
        place: spread for place, leaf in enumerate(leaves) if (spread := reader.spread(leaf)) is not None
    }
    if not known:
        raise CriterionError(
            f"no tensor of the model's output is known to depend on the units of group {part.name}, so there "
            "are no moments of the loss; use Path()."
        )
    roots = {place: _root(spread) for place, spread in known.items()}
    numbers = sum(root.shape[1] for root in roots.values())
    full = max((root.shape[1] for root in roots.values() if root.ndim == 3), default=0)
    if numbers > torch.quasirandom.SobolEngine.MAXDIM:
        raise CriterionError(
            f"the model's output has {numbers:,} random numbers per example; quasi-Monte Carlo takes up to "
            f"{torch.quasirandom.SobolEngine.MAXDIM:,}; use Path()."
        )
    noise = normals(numbers, max(-(-samples // 2), full))
    first = 0
    for place, leaf in enumerate(leaves):
        if place in roots:
            width = roots[place].shape[1]
            leaves[place] = _drawn(leaf, roots[place], noise[:, first : first + width])
            first += width
        elif isinstance(leaf, Tensor) and leaf.ndim:
            leaves[place] = leaf.repeat(len(noise), *[1] * (leaf.ndim - 1))
    losses = part.losses(tree_unflatten(leaves, form), len(noise))
    return precise(losses).view(len(noise), -1).mean(0)


def _root(spread: Spread) -> Tensor:
    """A square root of the covariance ``(rows, outputs, outputs)``, or deviations ``(rows, outputs)``."""
    small = 1e-12 if precise(spread.variance).dtype == torch.float64 else 1e-6
    wide = spread.mean.ndim > 1  # else a number for each example
    if spread.covariance is not None and wide and spread.mean.shape[1] <= FULL:
        covariance = precise(spread.covariance())
        size = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        eye = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
        root: Tensor = torch.linalg.cholesky(covariance + (small + small * size.detach()) * eye)
        return root * (size.detach() > 0)
    variance = precise(spread.variance).reshape(len(spread.variance), -1)
    return torch.where(variance > small, torch.where(variance > small, variance, 1).sqrt(), 0)


def _drawn(mean: Tensor, root: Tensor, noise: Tensor) -> Tensor:
    """Samples of an output, one after another along the rows."""
    noise = noise.to(root)
    deviation: Tensor = torch.einsum("sp,rop->sro", noise, root) if root.ndim == 3 else noise[:, None] * root
    return (mean + deviation.view(-1, *mean.shape).to(mean)).flatten(0, 1)


@functools.lru_cache(maxsize=8)
def normals(numbers: int, pairs: int) -> Tensor:
    """Antithetic Sobol normals ``(2 * pairs, numbers)`` of variance 1; uncorrelated where pairs suffice.

    >>> normals(3, 16).shape, bool(torch.allclose(normals(3, 16).T.cov(correction=0), torch.eye(3).double()))
    (torch.Size([32, 3]), True)
    """
    engine = torch.quasirandom.SobolEngine(numbers, scramble=True, seed=0)
    half = torch.special.ndtri(engine.draw(pairs, dtype=torch.float64).clamp(1e-6, 1 - 1e-6))
    if pairs >= numbers:
        root = torch.linalg.cholesky(half.T @ half / pairs)
        half = torch.linalg.solve_triangular(root, half.T, upper=False).T
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])


def pieces(game: LayerGame) -> Iterator[Suffix]:
    """The examples of this process, so many at a time that their moments fit into the game's memory."""
    for part in game.parts:
        rows = max(1, game.memory // (HEAVIER * part.row_bytes))
        runs = even(part.examples, rows)
        yield from (part.some(*run) for run in runs) if len(runs) > 1 else (part,)


def layer_game(game: Game, estimator: str) -> LayerGame:
    """The game, if it is one of a network.

    Raises:
        CriterionError: it is not, so there is nothing to propagate through.
    """
    if not isinstance(game, LayerGame):
        raise CriterionError(
            f"{estimator} propagates moments through the network behind a group, so it needs the game of a "
            f"network, as attribute() plays it; received a {type(game).__name__} that gives losses only. Use "
            "Path() or Permutation()."
        )
    return game


def carried(game: LayerGame, mine: Iterable[Tensor], evaluations: int) -> Estimate:
    """The estimate from the values of this rank's pieces, which take so many evaluations to compute."""
    before = game.evaluations
    nobody, everybody = ends(game)
    # More ranks than examples leave some without any.
    found = [*mine] or [nobody.new_zeros(0, game.players)]
    values = gather(torch.cat(found), game.examples)
    game.evaluations += evaluations
    return Estimate(
        values=values,
        stderr=None,
        evaluations=game.evaluations - before,
        shared=False,
        gap=nobody - everybody - values.sum(1),
    )
