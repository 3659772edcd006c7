"""Masks: which single weights of a model stay, packed one bit each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import _context
from .._store import Tensor
from ..errors import PlanError, StaleGraphError
from ._base import Part, Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mask(Part):
    """Which scalars of one parameter stay.

    Attributes:
        parameter: its name.
        shape: its shape.
        bits: one bit for each scalar in row-major order, set where it stays, eight in a byte; the first in
            the highest bit, as ``numpy.packbits`` packs.
        factors: what the scalars that stay are multiplied by, in their order; None for 1.

    >>> mask = Mask.of("w", torch.tensor([[True, False, True]]))
    >>> mask.bits, mask.kept, mask.keep()
    (tensor([160], dtype=torch.uint8), 2, tensor([[ True, False,  True]]))
    """

    parameter: str
    shape: tuple[int, ...]
    bits: Tensor
    factors: Tensor | None = None

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        bits, where = self.bits, f"the mask of {self.parameter} is damaged:"
        if bits.dtype != torch.uint8 or bits.shape != (-(-size // 8),):
            raise PlanError(
                f"{where} expected {-(-size // 8)} bytes for {size} scalars, "
                f"received {tuple(bits.shape)} of {str(bits.dtype).removeprefix('torch.')}."
            )
        if size % 8 and int(bits[-1]) & (0xFF >> size % 8):
            raise PlanError(f"{where} bits are set behind its last scalar.")
        if self.factors is not None:
            if self.factors.shape != (self.kept,) or not self.factors.is_floating_point():
                raise PlanError(
                    f"{where} expected {self.kept} factors, one for each scalar that stays, "
                    f"received {tuple(self.factors.shape)}."
                )
            if not bool(torch.isfinite(self.factors).all()):
                raise PlanError(f"{where} a factor is not finite.")

    @classmethod
    def of(cls, parameter: str, keep: torch.Tensor, factors: torch.Tensor | None = None) -> Mask:
        """The mask of a boolean tensor; ``factors``, of its shape, count where it is True."""
        bits = torch.from_numpy(np.packbits(keep.detach().cpu().numpy()))
        chosen = None if factors is None else factors[keep].detach().float().cpu()
        return cls(parameter=parameter, shape=tuple(keep.shape), bits=bits, factors=chosen)

    @property
    def size(self) -> int:
        """The number of scalars."""
        return math.prod(self.shape)

    @property
    def kept(self) -> int:
        """How many of them stay."""
        return int(np.unpackbits(self.bits.numpy()).sum(dtype=np.int64))

    def keep(self) -> torch.Tensor:
        """A boolean tensor of the parameter's shape: True where a scalar stays."""
        flat = np.unpackbits(self.bits.numpy(), count=self.size)
        return torch.from_numpy(flat.astype(bool)).reshape(self.shape)

    def multiplier(self) -> torch.Tensor:
        """What the parameter is multiplied by: 0 where a scalar goes, else its factor; single precision."""
        found = self.keep().float()
        if self.factors is not None:
            found[found > 0] = self.factors.float()
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks(Record):
    """The single weights that stay; what :func:`shapleaf.sparsify` returns.

    Nothing is applied yet: :func:`shapleaf.hold` sets the others to zero and keeps them there while the
    model trains, :func:`shapleaf.sparsified` does so in a copy. A file takes one bit for each weight.

    Attributes:
        fingerprint: a digest of the model's names, shapes and dtypes; other models are refused.
        masks: one for each parameter that may lose scalars; the others stay whole.
        before, after: the non-zero scalars among all parameters, of the model as it was and as masked.
        made_by: criterion, budget and whatever else led to them.

    Raises:
        PlanError: bits or counts that do not fit.

    >>> import shapleaf as sl
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> print(sl.sparsify(model, sl.Nonzeros(keep=0.5)))
    Masks
    parameter  weights  kept  kept %
    ─────────  ───────  ────  ──────
    0.weight        12 ...
    2.weight         8 ...
    non-zero parameters 26 -> 13 (50.0%)
    budget=Nonzeros(keep=0.5), criterion=Magnitude()
    """

    fingerprint: str
    masks: tuple[Mask, ...]
    before: int
    after: int
    made_by: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [mask.parameter for mask in self.masks]
        if len({*names}) < len(names):
            raise PlanError("two masks are of one parameter.")
        if not 0 <= self.after <= self.before:
            raise PlanError(f"the counts {self.before:,} before and {self.after:,} after do not fit.")

    def __getitem__(self, parameter: str) -> Mask:
        for mask in self.masks:
            if mask.parameter == parameter:
                return mask
        known = ", ".join(mask.parameter for mask in self.masks)
        raise PlanError(f"no parameter with a mask is named {parameter!r}; there are: {known}.")

    def __iter__(self) -> Iterator[Mask]:
        return iter(self.masks)

    @property
    def keep(self) -> float:
        """The share of the non-zero scalars that stays."""
        return self.after / max(self.before, 1)

    def check(self, model: nn.Module) -> Mapping[str, nn.Parameter]:
        """Refuse a model that these masks were not made for; returns its masked parameters by name.

        Raises:
            StaleGraphError: names, shapes or dtypes differ.
        """
        named = dict(model.named_parameters())
        for mask in self.masks:
            found = tuple(named[mask.parameter].shape) if mask.parameter in named else "absent"
            if found != mask.shape:
                raise StaleGraphError(
                    f"these masks belong to another model: {mask.parameter} is {found}, "
                    f"expected {mask.shape}. Use the model that was given to sparsify."
                )
        if fingerprint(model) != self.fingerprint:
            raise StaleGraphError(
                "these masks belong to another model: names, shapes or dtypes of its tensors differ "
                f"(fingerprint {fingerprint(model)}, expected {self.fingerprint}). "
                "Use the model that was given to sparsify."
            )
        return {mask.parameter: named[mask.parameter] for mask in self.masks}

    def table(self) -> dict[str, Any]:
        rows: list[list[object]] = [
            [mask.parameter, mask.size, mask.kept, f"{mask.kept / max(mask.size, 1):.1%}"]
            for mask in self.masks
        ]
        made = ", ".join(f"{key}={value}" for key, value in self.made_by.items())
        counts = f"non-zero parameters {self.before:,} -> {self.after:,} ({self.keep:.1%})"
        return {
            "title": "Masks",
            "header": ["parameter", "weights", "kept", "kept %"],
            "rows": rows,
            "footer": f"{counts}\n{made}".strip(),
        }


def fingerprint(model: nn.Module) -> str:
    """A digest of the names, shapes and dtypes of a model's tensors, as its graph's.

    >>> fingerprint(nn.Linear(3, 2)) == fingerprint(nn.Linear(3, 2)) != fingerprint(nn.Linear(2, 3))
    True
    """
    lines = (
        f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in _context.named_tensors(model)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
