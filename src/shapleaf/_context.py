"""Running the user's model and leaving it as it was found."""

from __future__ import annotations

import contextlib
import copy
import linecache
import operator
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import CheckpointError

from . import __version__
from .errors import CriterionError, DataError, ShapleafError

Loss = Callable[[Any, Any], Tensor]
LIBRARIES = tuple(os.path.dirname(file) + os.sep for file in (torch.__file__, __file__))
"""Where code lies that is not the user's own."""


def culprit(error: BaseException) -> traceback.FrameSummary | None:
    """The last line of the user's own code on the way to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame for frame in reversed(frames) if not frame.filename.startswith(LIBRARIES)), None)


def place(filename: str, line: int) -> str:
    """A line of code for a message; of generated code, as in a program, the name that it assigns."""
    if filename.startswith("<eval_with_key>"):
        return linecache.getline(filename, line).partition("=")[0].strip()
    return f"{os.path.basename(filename)}:{line}"


def made_with(loss: Loss | None, seed: int) -> dict[str, str]:
    """Settings of a record of what was measured: the loss by its name, the seed, the versions.

    >>> made_with(cross_entropy, 3)
    {'loss': 'cross_entropy', 'seed': '3', 'shapleaf': '...', 'torch': '...'}
    """
    name = "none" if loss is None else getattr(loss, "__name__", repr(loss))
    return {"loss": name, "seed": str(seed), **versions()}


def versions() -> dict[str, str]:
    """Of shapleaf and of PyTorch."""
    return {"shapleaf": __version__, "torch": str(torch.__version__)}


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
    """The tensors in nested tuples, lists and mappings, in the order of PyTorch's own trees."""
    if isinstance(nested, Tensor):
        return [nested]
    if type(nested) in (tuple, list, dict):  # which is what most calls are given
        parts = nested.values() if type(nested) is dict else nested
        return [tensor for part in parts for tensor in tensors(part)]
    if nested is None or isinstance(nested, int | float | str | torch.dtype | torch.device):
        return []
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """A model's parameters and buffers by name."""
    return [*model.named_parameters(), *model.named_buffers()]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lives; the CPU if it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def synchronise(device: torch.device) -> None:
    """Wait for what an accelerator still has to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def described(value: Any) -> str:
    """A value that is not what was expected, for messages: the dtype and shape of a tensor, or its type."""
    return f"{value.dtype} {(*value.shape,)}" if isinstance(value, Tensor) else type(value).__name__


def number(value: Any) -> Any:
    """A whole number of any kind, NumPy's or a tensor's, as Python's own; all else as it is, also bools.

    >>> number(torch.tensor(3)), number(True), number("true")
    (3, True, 'true')
    """
    dtype, ndim = getattr(value, "dtype", None), getattr(value, "ndim", 0)
    if isinstance(value, bool) or dtype is torch.bool or ndim:
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def several(name: str, given: Any) -> None:
    """Refuse a string where a sequence of them is expected, which Python takes for one of its letters.

    >>> several("groups", ("conv*",))
    """
    if isinstance(given, str):
        raise CriterionError(f"{name}={given!r}: expected a sequence, such as ({given!r},).")


def on_device(nested: Any, model: nn.Module) -> Any:
    """Nested inputs with their tensors on the model's device."""
    device = device_of(model)
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, nested)


def picked(nested: Any, index: Tensor) -> Any:
    """Some of the examples of nested inputs."""
    return tree_map(lambda leaf: leaf[index.to(leaf.device)] if isinstance(leaf, Tensor) else leaf, nested)


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

    Raises:
        DataError: labels are out of range, or scores and targets do not fit each other.

    >>> cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3])).tolist() == [torch.tensor(4.).log().item()] * 2
    True
    """
    scores = logits(output)
    if scores.ndim < 2:
        raise DataError(
            f"cross-entropy needs scores of shape (examples, classes), but the model returned "
            f"{tuple(scores.shape)}; pass loss=f(output, target) that fits it."
        )
    if target.is_floating_point():
        if scores.shape != target.shape:
            raise DataError(
                f"targets are probabilities of shape {tuple(target.shape)}, "
                f"but the model returned {tuple(scores.shape)}."
            )
    else:
        target = target.long()
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < scores.shape[1]:
            raise DataError(
                f"labels run from {int(target.min())} to {int(target.max())}, "
                f"but the model has {scores.shape[1]} classes (0 to {scores.shape[1] - 1})."
            )
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()  # what counts are small differences between losses
    loss = nn.functional.cross_entropy(scores, target, reduction="none")
    return loss.flatten(1).mean(1) if loss.ndim > 1 else loss


def per_example(loss: Loss, output: Any, target: Any, examples: int) -> Tensor:
    """The checked loss of each example: finite, shape ``(examples,)``.

    Raises:
        CriterionError: the loss failed, is not per example, or is not finite.
    """
    try:
        value = loss(output, target)
    except ShapleafError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        given, labels = ([tuple(leaf.shape) for leaf in tensors(nested)] for nested in (output, target))
        raise CriterionError(
            f"the loss failed on outputs of shape {given} and targets of shape {labels}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(value, Tensor) or value.shape != (examples,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CriterionError(
            f"the loss must be per example: expected shape ({examples},), received {got}. "
            "Use reduction='none' and average over everything but the first dimension."
        )
    if not bool(torch.isfinite(value).all()):
        bad = int((~torch.isfinite(value)).nonzero()[0])
        raise CriterionError(
            f"the loss of example {bad} of the batch is {float(value.detach()[bad])}; "
            "check the inputs' scale and the model's weights."
        )
    return value


def mixed(what: str) -> CriterionError:
    """The error when nothing can be said about a single example."""
    return CriterionError(
        f"{what}, so nothing can be measured per example. Either the model or the loss mixes the examples of "
        "a batch (a norm by batch statistics, say), or they do not lie along the first axis in its middle; "
        "a batch size of 1 works in any case."
    )


def gradients(
    loss: Tensor, wanted: Sequence[Tensor], *, instead: str, some: bool = True
) -> list[Tensor | None]:
    """The gradient of a summed loss with respect to each tensor, None where it does not depend on it.

    Raises:
        CriterionError: the loss has none; or with ``some``, it depends on none of the tensors. ``instead``
            says what to use then.
    """
    try:
        found = (
            torch.autograd.grad(loss, wanted, torch.ones_like(loss), allow_unused=True)
            if loss.requires_grad
            else ()
        )
    except CheckpointError as error:
        raise CriterionError(
            "the model runs parts of itself again for its gradient (torch.utils.checkpoint), but units are "
            f"masked only in its forward. Switch checkpointing off while it is scored, or use {instead}."
        ) from error
    except RuntimeError as error:
        raise CriterionError(
            f"the model runs, but its gradient cannot be taken ({error}); use {instead}."
        ) from error
    if not found or (some and all(gradient is None for gradient in found)):
        raise CriterionError(f"the loss does not depend on the units in a differentiable way; use {instead}.")
    return list(found)


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Errors of the block say where they happened."""
    try:
        yield
    except ShapleafError as error:
        raise type(error)(f"{place}: {error}") from error


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
        reseed(seed)
        yield


def reseed(seed: int) -> None:
    """Seed the default generators, within :func:`rng`.

    Not ``torch.manual_seed``: that would also seed devices that the user starts later.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def drew(seed: int) -> bool:
    """Whether anything was drawn from the default generators since they were seeded, within :func:`rng`."""
    devices = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return any(
        not torch.equal(one.get_state(), torch.Generator(one.device).manual_seed(seed).get_state())
        for one in (torch.default_generator, *devices)
    )


@contextlib.contextmanager
def buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that the block writes to or replaces are themselves again afterwards.

    So are tensors that modules hold as attributes, as older norms of weights do with what they compute
    before each run; unless these have another shape by now.
    """
    owned = [(module, dict(module._buffers)) for module in model.modules()]
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    computed = [(m, key, value) for m in model.modules() for key, value in vars(m).items() if _plain(value)]
    try:
        yield
    finally:
        for module, own in owned:
            module._buffers.clear()
            module._buffers.update(own)
        for module, key, value in computed:
            now = vars(module).get(key)
            if isinstance(now, Tensor) and now is not value and now.shape == value.shape:
                vars(module)[key] = value
        with torch.no_grad():
            for buffer, value in before:
                # What autograd saved for the user's own backward must not count as modified.
                if not buffer.is_meta and not torch.equal(buffer, value):
                    buffer.copy_(value)


def _plain(value: object) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, nn.Parameter)


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy, also of modules that hold tensors with a history, which PyTorch does not copy."""
    memo = {} if memo is None else memo
    for value in (value for module in model.modules() for value in vars(module).values()):
        if _plain(value) and not value.is_leaf:
            memo.setdefault(id(value), value.detach().clone())
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def inference(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Eval mode, private randomness and protected buffers: how every verb runs the user's model.

    In the user's inference mode no gradient could be taken, so it is left for the block.
    """
    on = torch.is_grad_enabled()  # leaving the inference mode turns gradients on
    with (
        torch.inference_mode(False),
        torch.set_grad_enabled(on),
        mode(model, train=False),
        rng(seed),
        buffers(model),
    ):
        yield
