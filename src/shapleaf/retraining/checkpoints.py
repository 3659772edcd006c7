"""Where a training stands, as one safetensors file; nothing is pickled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .. import _context, _store
from ..errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a training stands between two steps.

    Attributes:
        settings: what it was begun with; another training does not go on from here.
        step: steps done, counted from the first epoch.
        total: the loss of the running epoch, summed over its examples so far.
        elapsed: seconds of the running epoch so far.
        losses, rates, seconds: of the epochs that are over.
        batches: the digest of all batches so far.
        weights: parameters and buffers by name.
        momentum: the optimizer's, by the parameter's name.
    """

    settings: dict[str, str] = field(default_factory=dict)
    step: int = 0
    total: float = 0.0
    elapsed: float = 0.0
    losses: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    batches: str = ""
    weights: dict[str, _store.Tensor] = field(default_factory=dict)
    momentum: dict[str, _store.Tensor] = field(default_factory=dict)

    def holding(self, model: nn.Module, optimizer: Optimizer) -> Checkpoint:
        """The same, with the tensors of a model and of its optimizer."""
        momentum = {
            name: optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in model.named_parameters()
            if optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        return replace(self, weights=dict(_context.named_tensors(model)), momentum=momentum)

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Put the tensors back."""
        overwrite(model, self.weights)
        for name, parameter in model.named_parameters():
            if name in self.momentum:
                buffer = self.momentum[name].to(parameter.device, parameter.dtype, copy=True)
                optimizer.state[parameter]["momentum_buffer"] = buffer


def overwrite(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a model's parameters and buffers the values of the tensors of their names.

    Raises:
        DataError: names or shapes differ.

    >>> model = nn.Linear(1, 1)
    >>> overwrite(model, {"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    >>> model(torch.full((1, 1), 3.0)).item()
    3.0
    """
    mine = dict(_context.named_tensors(model))
    if mine.keys() != weights.keys():
        odd = sorted(mine.keys() ^ weights.keys())
        raise DataError(f"the weights belong to another model: {', '.join(odd[:3])} are in one of them only.")
    with torch.no_grad():
        for name, tensor in mine.items():
            if tensor.shape != weights[name].shape:
                raise DataError(
                    f"the weights belong to another model: {name} has shape {tuple(weights[name].shape)}, "
                    f"expected {tuple(tensor.shape)}."
                )
            tensor.copy_(weights[name])


def digest(*tensors: Tensor, begin: str = "") -> str:
    """A digest of tensors' bytes, chained to an earlier one.

    >>> one = digest(torch.zeros(2))
    >>> one == digest(torch.zeros(2)), one == digest(torch.zeros(2), begin=one)
    (True, False)
    """
    found = hashlib.blake2b(begin.encode(), digest_size=16)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        if plain.numel():
            found.update(plain.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def write(weights: nn.Module | Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict as a safetensors file, atomically.

    Raises:
        DataError: the place cannot be written, or an entry is not a tensor.
    """
    from safetensors.torch import save

    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise DataError(f"{odd[0]} of the state dict is not a tensor and cannot be saved.")
    with _store.atomic(path) as temporary:
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        temporary.write_bytes(save(plain))


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict that :func:`write` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path} holds no weights, or is damaged ({error}).") from error
