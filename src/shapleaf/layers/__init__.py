"""What PyTorch does in one call, in plain functions: so units inside can be seen, masked and removed."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from .attention import MultiheadAttention, attend

EQUIVALENTS: dict[Callable[..., Any], Callable[[tuple[Any, ...], dict[str, Any]], Any]] = {
    F.multi_head_attention_forward: attend
}
"""A function of PyTorch to what runs in its place, on its arguments, while a model is traced or masked."""

SUCCESSORS: dict[type[nn.Module], type[nn.Module]] = {nn.MultiheadAttention: MultiheadAttention}
"""A layer of PyTorch to the one that it becomes once its tensors are cut."""
