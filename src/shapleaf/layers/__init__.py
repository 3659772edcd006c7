"""What PyTorch does in one call, in plain functions: so units inside can be seen, masked and removed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from . import norms, recurrent
from .attention import MultiheadAttention, attend
from .norms import LENGTHS as LENGTHS

EQUIVALENTS: dict[Callable[..., Any], Callable[[tuple[Any, ...], dict[str, Any]], Any]] = {
    F.multi_head_attention_forward: attend,
    F.normalize: norms.normalize,
    F.rms_norm: norms.rms_norm,
    torch.rms_norm: norms.rms_norm,
    torch.ops.aten.rms_norm.default: norms.rms_norm,
    torch.lstm: recurrent.lstm,
    torch.gru: recurrent.gru,
    torch.rnn_tanh: recurrent.rnn_tanh,
    torch.rnn_relu: recurrent.rnn_relu,
}
"""A function of PyTorch to what runs in its place, on its arguments, while a model is traced or masked."""

SUCCESSORS: dict[type[nn.Module], type[nn.Module]] = {nn.MultiheadAttention: MultiheadAttention}
"""A layer of PyTorch to the one that it becomes once its tensors are cut."""
