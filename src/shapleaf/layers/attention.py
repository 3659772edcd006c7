"""Multi-head attention in plain functions: its heads can be seen, masked, and fewer than its width holds."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def attend(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``F.multi_head_attention_forward`` computes from its arguments, call by call.

    The width of all heads together is read off the weights, so it need not be that of the query.

    Returns:
        The output, (places, examples, width), and the attention weights or None; NotImplemented where
        keys or values are added to those of the sequence.
    """
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    added = ("bias_k", "bias_v", "static_k", "static_v")
    if given["add_zero_attn"] or any(given[name] is not None for name in added):
        return NotImplemented
    batched = given["query"].ndim == 3
    query, key, value = _projected(given, batched=batched)
    mask, causal = _mask(given, query, batched=batched)
    dropout = given["dropout_p"] if given["training"] else 0.0
    weights = None
    if given["need_weights"]:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = F.dropout(weights, dropout) if dropout else weights
        mixed = weights @ value
        weights = weights.mean(1) if given["average_attn_weights"] else weights
        weights = weights if batched else weights.squeeze(0)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
    out = F.linear(mixed.transpose(1, 2).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
    return out.transpose(0, 1) if batched else out.squeeze(0), weights


def _projected(given: dict[str, Any], *, batched: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: (examples, heads, places, dimensions)."""
    sources = [given[name] for name in ("query", "key", "value")]
    alike = all(source is sources[0] for source in sources)
    # Examples first: there masks on units are laid.
    sources = [source.transpose(0, 1) if batched else source.unsqueeze(0) for source in sources]
    weight, bias = given["in_proj_weight"], given["in_proj_bias"]
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    elif alike:
        projected = [*F.linear(sources[0], weight, bias).chunk(3, -1)]
    else:
        weights = weight.chunk(3)
    if given["use_separate_proj_weight"] or not alike:
        biases = bias.chunk(3) if bias is not None else (None,) * 3
        projected = [F.linear(*three) for three in zip(sources, weights, biases, strict=True)]
    heads = given["num_heads"]
    query, key, value = (p.unflatten(-1, (heads, p.shape[-1] // heads)).transpose(1, 2) for p in projected)
    return query, key, value


def _mask(given: dict[str, Any], query: Tensor, *, batched: bool) -> tuple[Tensor | None, bool]:
    """Both masks as one that is added, and whether PyTorch's causal one does instead."""
    padding, mask = given["key_padding_mask"], given["attn_mask"]
    if given["is_causal"] and padding is None and not given["need_weights"]:
        return None, True
    if mask is not None:
        mask = _added(mask, query)
        mask = mask.view(*query.shape[:2], *mask.shape[1:]) if mask.ndim == 3 else mask
    if padding is not None:
        padding = _added(padding if batched else padding.unsqueeze(0), query)[:, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask, False


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask to be added: minus infinity where a boolean one says no."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)


class MultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` after surgery: its heads need not add up to the width that it serves.

    Parameters and their names, arguments and results are those of PyTorch's layer, of which pruned
    models hold this in place; it is made by ``shapleaf.prune``, and by ``shapleaf.replay``.

    >>> import shapleaf as sl
    >>> model = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True)
    >>> graph = sl.trace(nn.Sequential(model, nn.Linear(8, 2)), torch.zeros(1, 3, 8))
    >>> graph["0.self_attn"].size
    4
    """

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """PyTorch's layers look here before they take a short cut that knows full widths only."""
        return False

    def forward(  # noqa: PLR0913, PLR0917 - those of PyTorch
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``."""
        turned = self.batch_first and query.ndim == 3
        if turned:
            moved = {id(source): source.transpose(0, 1) for source in (query, key, value)}
            query, key, value = (moved[id(source)] for source in (query, key, value))
        sizes = (self.embed_dim, self.num_heads)
        projections = (self.in_proj_weight, self.in_proj_bias, self.bias_k, self.bias_v, self.add_zero_attn)
        output = (self.dropout, self.out_proj.weight, self.out_proj.bias, self.training)
        masks = (key_padding_mask, need_weights, attn_mask, self.in_proj_weight is None)
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        out, weights = attend(
            (query, key, value, *sizes, *projections, *output, *masks, *separate),
            {"average_attn_weights": average_attn_weights, "is_causal": is_causal},
        )
        return out.transpose(0, 1) if turned else out, weights
