"""The game at a group of a network: which units are present, and what that costs each example.

The part of the network before the group's first consumer does not change from coalition to
coalition, so it runs once: later forwards go through the model's own Python code, but each torch
call of the prefix is answered from memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .. import _context
from ..data import Batch
from ..errors import ShapleafError
from ..masking import Fill, Gate, Gates, Masks, Reader
from ..records import Group

_Recorded = tuple[str, Any]


class LayerGame:
    """A :class:`~shapleaf.game.Game` of one group, one batch and a loss per example.

    Run it inside ``_context.inference(model)``. ``cached`` says whether the prefix is answered from
    memory: it is not if the model computes differently when run twice, or writes in place into
    what the prefix left, which is checked on the first forwards.

    Raises:
        CriterionError: the loss is not per example or not finite, or examples influence each other.
    """

    def __init__(
        self, model: nn.Module, group: Group, batch: Batch, loss: _context.Loss, fill: Fill | None = None
    ) -> None:
        self._model, self._batch, self._loss, self._fill = model, batch, loss, fill
        self._gates = Gates((group,))
        self.players, self.examples, self.name = group.size, batch.examples, group.name
        self.ids = batch.ids
        self.evaluations = 0
        self.dtype, self.device = _floating(model, batch)
        self._prefix: list[_Recorded] = []
        self.cached = False
        self._record()

    def loss(self, mask: Tensor) -> Tensor:
        """Loss of each example under its own mask; counts 1 evaluation."""
        self.evaluations += 1
        with torch.no_grad():
            return self._forward(mask)

    def gradient(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to each example's own mask; counts 3 evaluations."""
        self.evaluations += 3
        leaf = mask.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self._forward(leaf)
        instead = "an estimator without gradients, such as Permutation()"
        (gradient,) = _context.gradients(loss, [leaf], instead=instead)
        assert gradient is not None
        return loss.detach(), gradient

    def _forward(self, mask: Tensor) -> Tensor:
        if self.cached:
            try:
                return self._replay(mask)
            except _Diverged:
                self.cached, self._prefix = False, []
        return self._replay(mask)

    def _replay(self, mask: Tensor) -> Tensor:
        masks = Masks({self.name: mask}, self._fill)
        return self._run(_Replay(self._model, self._gates, masks, self._prefix))[0]

    def _run(self, reader: Reader) -> tuple[Tensor, Any]:
        _context.reseed(0)  # a model that draws random numbers draws the same for every coalition
        # A model may write into its inputs; the prefix, once answered from memory, does not.
        inputs = self._batch.inputs if self.cached else tree_map(_own, self._batch.inputs)
        with reader:
            output = _context.forward(self._model, inputs)
        return _context.per_example(self._loss, output, self._batch.target, self.examples), output

    def _record(self) -> None:
        """Run the model once, and once more from the record; keep it if both agree.

        The second time the units of every other example count half: the rest must not notice.
        """
        recorder = _Record(self._model, self._gates)
        mask = torch.ones(self.examples, self.players, dtype=self.dtype, device=self.device)
        mask[1::2] = 0.5
        with torch.no_grad():
            expected, output = self._run(recorder)
            if recorder.calls and not recorder.written():
                self._prefix, self.cached = recorder.released(output), True
                with contextlib.suppress(_Diverged, ShapleafError):  # it reads what was not seen to be read
                    if _agree(self._replay(mask), expected):
                        return
                self._prefix, self.cached = [], False
            if not _agree(self._replay(mask), expected):
                raise _context.mixed(
                    f"the loss of an example changes with the units of others at {self.name}"
                )


def _agree(losses: Tensor, expected: Tensor) -> bool:
    return torch.allclose(losses[::2], expected[::2], rtol=1e-4, atol=1e-5)


class _Diverged(Exception):  # noqa: N818 - never leaves this module
    """The model called other functions than the time before."""


class _Record(Reader):
    """Remembers what every call before the first gated one returned."""

    def __init__(self, model: nn.Module, gates: Gates) -> None:
        super().__init__(model, gates, _unchanged)
        self.calls: list[_Recorded] = []
        self._versions: list[tuple[Tensor, int]] = []
        self._used: set[int] = set()
        self._open = True

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._open and key in self._gates.at:
            self._open = False
            tensors = [t for _, out in self.calls for t in tree_leaves(out) if isinstance(t, Tensor)]
            self._versions = [(tensor, tensor._version) for tensor in tensors]
        out = super().call(key, func, args, kwargs)
        if self._open:
            self.calls.append((key, out))
        else:
            self._used |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return out

    def written(self) -> bool:
        """Whether anything wrote into the prefix's tensors after the prefix."""
        return any(tensor._version != version for tensor, version in self._versions)

    def released(self, output: Any) -> list[_Recorded]:
        """The record, with memory kept only for tensors in the output or read by later calls."""
        used = self._used | {id(leaf) for leaf in _context.tensors(output)}

        def slim(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or id(leaf) in used:
                return leaf
            # NaN, so that a read nobody foresaw shows up in the loss.
            empty = float("nan") if leaf.is_floating_point() else 0
            return leaf.new_full((), empty).expand(leaf.shape)

        return [(key, tree_map(slim, out)) for key, out in self.calls]


class _Replay(Reader):
    """Answers the calls of the prefix from memory and runs the rest with masks."""

    def __init__(self, model: nn.Module, gates: Gates, masks: Masks, prefix: list[_Recorded]) -> None:
        super().__init__(model, gates, masks)
        self._prefix, self._next = prefix, 0

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._next < len(self._prefix):
            expected, out = self._prefix[self._next]
            if key != expected:
                raise _Diverged(f"{key} ran where {expected} had run before")
            self._next += 1
            return out
        return super().call(key, func, args, kwargs)


def _own(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _unchanged(place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
    return read


def _floating(model: nn.Module, batch: Batch) -> tuple[torch.dtype, torch.device]:
    tensors = [*model.parameters(), *(t for t in tree_leaves(batch.inputs) if isinstance(t, Tensor))]
    first = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return first.dtype, first.device
