"""Hugging Face architectures in small: a model class, a configuration that builds in a moment, its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import DataError
from ..integrations import require


class Configuration(NamedTuple):
    """A model class of transformers, the configuration it is built from, and the kind of its inputs."""

    model: str
    config: str
    options: dict[str, Any]
    inputs: str = "words"


_HEADS = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {**_HEADS, "intermediate_size": 48}
_QUIET = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_CAUSAL = {**_TEXT, **_QUIET}
_GROUPED = {**_CAUSAL, "num_attention_heads": 8, "num_key_value_heads": 2}
_GPT = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, **_QUIET}
_T5 = {
    "vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
_BOTH = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, **_QUIET,
}  # fmt: skip
_IMAGE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_SPEECH = {
    **_TEXT, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_SEGFORMER = {
    "hidden_sizes": [16, 32], "depths": [1, 1], "num_encoder_blocks": 2, "num_attention_heads": [2, 4],
    "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 2],
}  # fmt: skip
_MOBILEVIT = {
    "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 48], "num_attention_heads": 4,
    "image_size": 64,
}  # fmt: skip

CONFIGURATIONS: dict[str, Configuration] = {
    # encoders
    "bert": Configuration("BertForSequenceClassification", "BertConfig", _TEXT),
    "roberta": Configuration("RobertaForSequenceClassification", "RobertaConfig", _CAUSAL),
    "xlm_roberta": Configuration("XLMRobertaForSequenceClassification", "XLMRobertaConfig", _CAUSAL),
    "albert": Configuration(
        "AlbertForSequenceClassification", "AlbertConfig", {**_TEXT, "embedding_size": 16}
    ),
    "electra": Configuration(
        "ElectraForSequenceClassification", "ElectraConfig", {**_TEXT, "embedding_size": 16}
    ),
    "distilbert": Configuration(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "mpnet": Configuration("MPNetForSequenceClassification", "MPNetConfig", _CAUSAL),
    "deberta_v2": Configuration("DebertaV2ForSequenceClassification", "DebertaV2Config", _TEXT),
    "modernbert": Configuration(
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        {**_CAUSAL, "cls_token_id": 1, "sep_token_id": 2, "global_attn_every_n_layers": 2},
    ),
    # decoders
    "gpt2": Configuration("GPT2LMHeadModel", "GPT2Config", _GPT),
    "gpt_bigcode": Configuration("GPTBigCodeForCausalLM", "GPTBigCodeConfig", {**_GPT, "multi_query": True}),
    "gpt_neox": Configuration("GPTNeoXForCausalLM", "GPTNeoXConfig", _CAUSAL),
    "gptj": Configuration("GPTJForCausalLM", "GPTJConfig", {**_GPT, "rotary_dim": 4}),
    "bloom": Configuration(
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 60, "hidden_size": 32, "n_layer": 2, "n_head": 4, **_QUIET},
    ),
    "opt": Configuration(
        "OPTForCausalLM", "OPTConfig", {**_HEADS, "ffn_dim": 48, "word_embed_proj_dim": 32, **_QUIET}
    ),
    "falcon": Configuration(
        "FalconForCausalLM", "FalconConfig", {**_HEADS, **_QUIET, "multi_query": True, "alibi": False}
    ),
    "phi": Configuration("PhiForCausalLM", "PhiConfig", _CAUSAL),
    # decoders with grouped queries
    "llama": Configuration("LlamaForCausalLM", "LlamaConfig", _GROUPED),
    "mistral": Configuration("MistralForCausalLM", "MistralConfig", _GROUPED),
    "qwen2": Configuration("Qwen2ForCausalLM", "Qwen2Config", _GROUPED),
    "qwen3": Configuration("Qwen3ForCausalLM", "Qwen3Config", {**_GROUPED, "head_dim": 8}),
    "gemma": Configuration("GemmaForCausalLM", "GemmaConfig", {**_GROUPED, "head_dim": 8}),
    "gemma2": Configuration("Gemma2ForCausalLM", "Gemma2Config", {**_GROUPED, "head_dim": 8}),
    "gemma3": Configuration("Gemma3ForCausalLM", "Gemma3TextConfig", {**_GROUPED, "head_dim": 8}),
    "phi3": Configuration("Phi3ForCausalLM", "Phi3Config", _GROUPED),
    "olmo2": Configuration("Olmo2ForCausalLM", "Olmo2Config", _GROUPED),
    "stablelm": Configuration(
        "StableLmForCausalLM", "StableLmConfig", {**_GROUPED, "partial_rotary_factor": 0.5}
    ),
    "starcoder2": Configuration("Starcoder2ForCausalLM", "Starcoder2Config", _GROUPED),
    # encoders with decoders
    "t5": Configuration("T5ForConditionalGeneration", "T5Config", _T5, "pairs"),
    "mt5": Configuration("MT5ForConditionalGeneration", "MT5Config", _T5, "pairs"),
    "bart": Configuration("BartForConditionalGeneration", "BartConfig", _BOTH, "pairs"),
    "pegasus": Configuration(
        "PegasusForConditionalGeneration", "PegasusConfig", {**_BOTH, "decoder_start_token_id": 0}, "pairs"
    ),
    "marian": Configuration(
        "MarianMTModel",
        "MarianConfig",
        {**_BOTH, "decoder_start_token_id": 0, "max_position_embeddings": 16},
        "pairs",
    ),
    # vision
    "vit": Configuration("ViTForImageClassification", "ViTConfig", _IMAGE, "image"),
    "deit": Configuration("DeiTForImageClassification", "DeiTConfig", _IMAGE, "image"),
    "beit": Configuration("BeitForImageClassification", "BeitConfig", _IMAGE, "image"),
    "dinov2": Configuration("Dinov2ForImageClassification", "Dinov2Config", _IMAGE, "image"),
    "siglip": Configuration("SiglipVisionModel", "SiglipVisionConfig", _IMAGE, "image"),
    "clip": Configuration(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", {**_IMAGE, "projection_dim": 16}, "image"
    ),
    "swin": Configuration(
        "SwinForImageClassification",
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4],
         "window_size": 4},
        "image",
    ),
    "convnext": Configuration(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
        "image",
    ),
    "mobilevit": Configuration("MobileViTForImageClassification", "MobileViTConfig", _MOBILEVIT, "photo"),
    "segformer": Configuration("SegformerForImageClassification", "SegformerConfig", _SEGFORMER, "image"),
    "segformer_segmentation": Configuration(
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {**_SEGFORMER, "decoder_hidden_size": 24},
        "image",
    ),
    "mobilevit_segmentation": Configuration(
        "MobileViTForSemanticSegmentation",
        "MobileViTConfig",
        {**_MOBILEVIT, "aspp_out_channels": 16, "output_stride": 16},
        "photo",
    ),
    # speech
    "wav2vec2": Configuration("Wav2Vec2ForCTC", "Wav2Vec2Config", _SPEECH, "speech"),
    "hubert": Configuration("HubertForCTC", "HubertConfig", _SPEECH, "speech"),
    "whisper": Configuration(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {**_BOTH, "num_mel_bins": 8, "max_source_positions": 20, "decoder_start_token_id": 1},
        "spectrum",
    ),
}  # fmt: skip


def _words() -> torch.Tensor:
    return torch.randint(5, 50, (2, 9))


_INPUTS: dict[str, Callable[[], Any]] = {
    "words": _words,
    "pairs": lambda: {"input_ids": _words(), "decoder_input_ids": _words()},
    "image": lambda: torch.randn(1, 3, 32, 32),
    "photo": lambda: torch.randn(1, 3, 64, 64),
    "speech": lambda: torch.randn(1, 800),
    "spectrum": lambda: {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": _words()},
}


def build(name: str) -> tuple[nn.Module, Any]:
    """A model of the table with random weights, and example inputs.

    Raises:
        DataError: the table has no such architecture.
        MissingExtraError: transformers is not installed.
    """
    if name not in CONFIGURATIONS:
        raise DataError(f"hf:{name} is not among the architectures listed: {', '.join(CONFIGURATIONS)}.")
    transformers = require("transformers", "huggingface")
    entry = CONFIGURATIONS[name]
    config = getattr(transformers, entry.config)(**entry.options)
    return getattr(transformers, entry.model)(config), _INPUTS[entry.inputs]()
