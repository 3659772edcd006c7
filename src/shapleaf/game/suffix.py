"""The network behind a group: what masks on its units cost each example of one batch.

The part of the network before the group's first consumer does not change from coalition to
coalition, so it runs once: later forwards go through the model's own Python code, but each torch
call of the prefix is answered from memory.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from .. import _context
from ..data import Batch
from ..errors import CriterionError, ShapleafError
from ..masking import Fill, Gate, Gates, Masks, Reader
from ..records import Group

Prefix = list[tuple[str, Any]]
P = TypeVar("P", bound="Replay")


class Suffix:
    """Losses of one batch under masks on the units of one group.

    Run it inside ``_context.inference(model)``. ``cached`` says whether the prefix is answered from
    memory: it is not if the model computes differently when run twice, or writes in place into
    what the prefix left, which is checked on the first forwards. ``row_bytes`` is about what an example
    takes: what is kept of it, and twice what the rest of the network computes, for the gradients.

    Args:
        model: the model.
        group: whose units are masked.
        batch: the examples.
        loss: ``f(output, target)``, one value per example.
        fill: what absent units leave behind; zero by default.
        like: the same on a few other examples. Only what that one kept of its prefix is kept here from
            the start, so that the whole prefix is never in memory at once.

    Raises:
        CriterionError: the loss is not per example or not finite, or examples influence each other.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        batch: Batch,
        loss: _context.Loss,
        fill: Fill | None = None,
        like: Suffix | None = None,
    ) -> None:
        self._model, self._batch, self._loss, self.fill = model, batch, loss, fill
        self._gates = Gates((group,))
        self.players, self.examples, self.name = group.size, batch.examples, group.name
        self.dtype, self.device = _floating(model, batch)
        self._prefix: Prefix = []
        self.cached, self.row_bytes = False, 0
        self._record(like)

    def loss(self, mask: Tensor) -> Tensor:
        """Loss of each example under its own mask, ``(examples,)``."""
        with torch.no_grad():
            return self._forward(mask)

    def gradient(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to each example's own mask."""
        leaf = mask.detach().clone().requires_grad_()
        with torch.enable_grad():
            loss = self._forward(leaf)
        instead = "an estimator without gradients, such as Permutation()"
        (gradient,) = _context.gradients(loss, [leaf], instead=instead)
        assert gradient is not None
        return loss.detach(), gradient

    def through(self, make: Callable[[nn.Module, Gates, Prefix], P]) -> tuple[P, Any]:
        """A reader made for this, and the model's output as it ran through it.

        Raises:
            CriterionError: the model called other functions than the time before.
        """
        reader = make(self._model, self._gates, self._prefix)
        try:
            return reader, self._output(reader)
        except _Diverged as error:
            raise CriterionError(
                f"the model takes another way each time it is run ({error}) at {self.name}; use Path() or "
                "Permutation(), which run it as a whole then."
            ) from error

    def some(self, start: int, stop: int) -> Suffix:
        """A run of these examples on their own."""
        batch = self._batch[start:stop]
        return Suffix(self._model, self._gates.groups[0], batch, self._loss, self.fill, self)

    def losses(self, output: Any, times: int = 1) -> Tensor:
        """Losses of outputs that hold these examples so many times over, one after another."""
        target = tree_map(lambda leaf: _repeated(leaf, self.examples, times), self._batch.target)
        return _context.per_example(self._loss, output, target, times * self.examples)

    def forget(self) -> None:
        """Keep nothing of the prefix from now on: every forward runs the whole network."""
        self.cached, self._prefix = False, []

    @property
    def kept(self) -> int:
        """Bytes of what is kept of the prefix."""
        return _size([out for _, out in self._prefix])

    def tiled(self, times: int) -> Suffix | None:
        """The same examples so many times over, one after another; None where that cannot be done.

        What the prefix left is repeated along the examples, and the losses are compared with these.
        """
        if not self.cached:
            return None

        def repeated(leaf: Any) -> Any:
            return _repeated(leaf, self.examples, times)

        wide = copy.copy(self)
        wide.examples = times * self.examples
        inputs, target = tree_map(repeated, (self._batch.inputs, self._batch.target))
        wide._batch = Batch(inputs, target, self._batch.first)
        wide._prefix = [(key, tree_map(repeated, out)) for key, out in self._prefix]
        mask = torch.linspace(0, 1, self.players, dtype=self.dtype, device=self.device)
        with contextlib.suppress(_Diverged, ShapleafError), torch.no_grad():
            expected = self._replay(mask.expand(self.examples, -1))
            if _close(wide._replay(mask.expand(wide.examples, -1)), expected.repeat(times)):
                return wide
        return None

    def _forward(self, mask: Tensor) -> Tensor:
        if self.cached:
            try:
                return self._replay(mask)
            except _Diverged:
                self.forget()
        return self._replay(mask)

    def _replay(self, mask: Tensor) -> Tensor:
        masks = Masks({self.name: mask}, self.fill)
        return self._run(Replay(self._model, self._gates, masks, self._prefix))[0]

    def _run(self, reader: Reader) -> tuple[Tensor, Any]:
        output = self._output(reader)
        return _context.per_example(self._loss, output, self._batch.target, self.examples), output

    def _output(self, reader: Reader) -> Any:
        _context.reseed(0)  # a model that draws random numbers draws the same for every coalition
        # A model may write into its inputs; the prefix, once answered from memory, does not.
        inputs = self._batch.inputs if self.cached else tree_map(_own, self._batch.inputs)
        with reader:
            return _context.forward(self._model, inputs)

    def _record(self, like: Suffix | None) -> None:
        """Run the model once, and once more from the record; keep it if both agree.

        The second time the units of every other example count half: the rest must not notice.
        """
        recorder = _Record(self._model, self._gates, like)
        mask = torch.ones(self.examples, self.players, dtype=self.dtype, device=self.device)
        mask[1::2] = 0.5
        with torch.no_grad():
            expected, output = self._run(recorder)
            self.row_bytes = (_size(self._batch.inputs) + 2 * recorder.computed) // self.examples + 1
            if recorder.calls and not recorder.written():
                self._prefix, self.cached = recorder.released(output), True
                self.row_bytes += self.kept // self.examples
                with contextlib.suppress(_Diverged, ShapleafError):  # it reads what was not seen to be read
                    if _close(self._replay(mask)[::2], expected[::2]):
                        return
                self.forget()
            if not _close(self._replay(mask)[::2], expected[::2]):
                raise _context.mixed(
                    f"the loss of an example changes with the units of others at {self.name}"
                )


def _close(losses: Tensor, expected: Tensor) -> bool:
    # What autocast rounds depends on the shape of the batch.
    coarse = torch.is_autocast_enabled(losses.device.type)
    return torch.allclose(losses, expected, rtol=2e-2 if coarse else 1e-4, atol=5e-2 if coarse else 1e-5)


class _Diverged(Exception):  # noqa: N818 - never leaves this module
    """The model called other functions than the time before."""


class _Record(Reader):
    """Remembers what every call before the first gated one returned."""

    def __init__(self, model: nn.Module, gates: Gates, like: Suffix | None) -> None:
        super().__init__(model, gates, _unchanged)
        self.calls: Prefix = []
        self.computed = 0
        self._like = like._prefix if like is not None else []
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
            self.calls.append((key, self._kept(key, out)))
        else:
            self.computed += _size(out)
            self._used |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return out

    def _kept(self, key: str, out: Any) -> Any:
        """Of a call, what was kept of the same call elsewhere."""
        place = len(self.calls)
        if place >= len(self._like) or self._like[place][0] != key:
            return out
        leaves, before = tree_leaves(out), tree_leaves(self._like[place][1])
        unread = {id(leaf) for leaf, old in zip(leaves, before, strict=False) if _released(old)}
        return tree_map(lambda leaf: _release(leaf) if id(leaf) in unread else leaf, out)

    def written(self) -> bool:
        """Whether anything wrote into the prefix's tensors after the prefix."""
        return any(tensor._version != version for tensor, version in self._versions)

    def released(self, output: Any) -> Prefix:
        """The record, with memory kept only for tensors in the output or read by later calls."""
        used = self._used | {id(leaf) for leaf in _context.tensors(output)}
        return [
            (key, tree_map(lambda leaf: leaf if id(leaf) in used else _release(leaf), out))
            for key, out in self.calls
        ]


class Replay(Reader):
    """Answers the calls of the prefix from memory and runs the rest with masks."""

    def __init__(
        self,
        model: nn.Module,
        gates: Gates,
        replace: Callable[[tuple[str, int], Gate, Tensor], Tensor],
        prefix: Prefix,
    ) -> None:
        super().__init__(model, gates, replace)
        self._prefix, self._next = prefix, 0

    def call(self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._next < len(self._prefix):
            expected, out = self._prefix[self._next]
            if key != expected:
                raise _Diverged(f"{key} ran where {expected} had run before")
            self._next += 1
            return out
        return self.behind(key, func, args, kwargs)

    def behind(
        self, key: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run one call behind the prefix."""
        return super().call(key, func, args, kwargs)


def _release(leaf: Any) -> Any:
    """A tensor of the same shape without memory."""
    if not isinstance(leaf, Tensor):
        return leaf
    # NaN, so that a read nobody foresaw shows up in the loss.
    empty = float("nan") if leaf.is_floating_point() else 0
    return leaf.new_full((), empty).expand(leaf.shape)


def _released(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.numel() > 1 and not any(leaf.stride())


def _repeated(leaf: Any, rows: int, times: int) -> Any:
    """A tensor, or the shape of one, with so many times as much along the examples if it has any."""
    if isinstance(leaf, torch.Size) and leaf and leaf[0] % rows == 0:
        return torch.Size((leaf[0] * times, *leaf[1:]))
    if not isinstance(leaf, Tensor) or not leaf.ndim or len(leaf) % rows:
        return leaf
    if _released(leaf):
        return _release(leaf.new_empty(()).expand(len(leaf) * times, *leaf.shape[1:]))
    return leaf.repeat(times, *[1] * (leaf.ndim - 1))


def _size(nested: Any) -> int:
    """Bytes of the tensors in it, those without memory aside."""
    tensors = {id(leaf): leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values() if not _released(t))


def _own(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _unchanged(place: tuple[str, int], gate: Gate, read: Tensor) -> Tensor:
    return read


def _floating(model: nn.Module, batch: Batch) -> tuple[torch.dtype, torch.device]:
    tensors = [*model.parameters(), *(t for t in tree_leaves(batch.inputs) if isinstance(t, Tensor))]
    first = next((t for t in tensors if t.is_floating_point()), torch.zeros(()))
    return first.dtype, first.device
