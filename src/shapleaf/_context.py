"""Running the user's model and leaving it as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .errors import CriterionError, DataError, ShapleafError

Loss = Callable[[Any, Any], Tensor]


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call the model: a tuple is positional arguments, a mapping keyword arguments.

    Raises:
        DataError: the model failed; the message shows what it was given.
    """
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, tuple | list):
            return model(*inputs)
        return model(inputs)
    except ShapleafError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        given = [f"{tuple(leaf.shape)} {leaf.dtype} on {leaf.device}" for leaf in tensors(inputs)]
        raise DataError(
            f"the model failed on inputs of {', '.join(given) or type(inputs).__name__}: "
            f"{type(error).__name__}: {error}"
        ) from error


def tensors(nested: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def logits(output: Any) -> Tensor:
    """The prediction tensor of an output: itself, ``.logits``, ``["logits"]``, ``["out"]`` or the first."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "out"):
        if isinstance(output, Mapping) and isinstance(output.get(name), Tensor):
            found: Tensor = output[name]
            return found
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)  # type: ignore[no-any-return]
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        return output[0]
    raise DataError(
        f"the model returned {type(output).__name__}, in which no tensor of predictions was found; "
        "pass loss=f(output, target) that reads it."
    )


def cross_entropy(output: Any, target: Tensor) -> Tensor:
    """Cross-entropy per example, shape ``(examples,)``, averaged over any further positions.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3])).tolist() == [torch.tensor(4.).log().item()] * 2
    True
    """
    scores = logits(output)
    if target.is_floating_point():
        if scores.shape != target.shape:
            raise DataError(
                f"targets are probabilities of shape {tuple(target.shape)}, "
                f"but the model returned {tuple(scores.shape)}."
            )
    elif target.numel() and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[1]:
        raise DataError(
            f"labels run from {int(target.min())} to {int(target.max())}, "
            f"but the model has {scores.shape[1]} classes (0 to {scores.shape[1] - 1})."
        )
    loss = nn.functional.cross_entropy(scores, target, reduction="none")
    return loss.flatten(1).mean(1) if loss.ndim > 1 else loss


def per_example(loss: Loss, output: Any, target: Any, examples: int) -> Tensor:
    """The checked loss of each example: finite, shape ``(examples,)``."""
    value = loss(output, target)
    if not isinstance(value, Tensor) or value.shape != (examples,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CriterionError(
            f"the loss must be per example: expected shape ({examples},), received {got}. "
            "Use reduction='none' and average over everything but the first dimension."
        )
    if not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).nonzero()[0])
        raise CriterionError(
            f"the loss of example {bad} of the batch is {float(value[bad])}; "
            "check the inputs' scale and the model's weights."
        )
    return value


@contextlib.contextmanager
def mode(model: nn.Module, *, train: bool) -> Iterator[None]:
    """Train or eval mode for the block; every module's own flag is put back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.train(train)
        yield
    finally:
        for module, flag in before:
            module.training = flag


@contextlib.contextmanager
def rng(seed: int) -> Iterator[None]:
    """A seeded default generator for the block, on CPU and every CUDA device in use."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that the block writes to get their bytes back afterwards."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@contextlib.contextmanager
def inference(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Eval mode, private randomness and protected buffers: how every verb runs the user's model."""
    with mode(model, train=False), rng(seed), buffers(model):
        yield
