"""Which architectures are traced, pruned and proven right, told nothing: the table that the docs show.

    python benchmarks/architectures.py                # all of them, resumed where it stopped
    python benchmarks/architectures.py timm:vit*      # some of them

Every model is built from its configuration with random weights, in double precision, in a process of its
own with a time limit. Half of every group is removed, then a random share of each; ``prune`` refuses what
differs from the masked model, so a row says "proven", "refused" or "failed", never "wrong".
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "architectures.json"
LIMIT = 240

TORCHVISION = """alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 mobilenet_v2
mobilenet_v3_small efficientnet_b0 efficientnet_v2_s mnasnet1_0 shufflenet_v2_x1_0 squeezenet1_0 googlenet
inception_v3 regnet_y_400mf regnet_x_400mf convnext_tiny vit_b_16 swin_t swin_v2_t maxvit_t""".split()
SEGMENTATION = "deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large".split()
TIMM = """vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 mixer_s32_224 convnext_atto convnextv2_atto
resmlp_12_224 eva02_tiny_patch14_224 beit_base_patch16_224 xcit_nano_12_p16_224 mobilenetv4_conv_small
mobilenetv4_hybrid_medium levit_128s pvt_v2_b0 poolformer_s12 coatnet_nano_rw_224 swin_tiny_patch4_window7_224
efficientformer_l1 edgenext_xx_small ghostnet_100 repvgg_a0 hrnet_w18_small dla34 res2net50_26w_4s
ese_vovnet19b_dw fastvit_t8 dm_nfnet_f0 mobilevit_xxs twins_svt_small convformer_s18 cspresnet50 dpn68
resnest14d skresnet18 gcresnet33ts efficientvit_b0 gmlp_s16_224 inception_v4 davit_tiny hiera_tiny_224
starnet_s1 volo_d1_224 nextvit_small tiny_vit_5m_224 resnet26d regnetz_b16 tf_efficientnet_lite0
mobilenetv3_small_050 lcnet_050 tinynet_e mixnet_s rexnet_100 selecsls42b visformer_tiny crossvit_tiny_240
cait_xxs24_224 convit_tiny coat_tiny focalnet_tiny_srf maxvit_nano_rw_256 nest_tiny sequencer2d_s vgg11_bn
xception41 botnet26t_256 halonet26t lambda_resnet26t hardcorenas_a spnasnet_100""".split()
HUGGING_FACE = """bert vit gpt2 llama qwen2 distilbert opt t5 segformer swin roberta albert electra bart
whisper wav2vec2 clip deit mistral gpt_neox""".split()
SPECS = [
    *(f"torchvision:{name}" for name in TORCHVISION),
    *(f"segmentation:{name}" for name in SEGMENTATION),
    *(f"timm:{name}" for name in TIMM),
    *(f"hf:{name}" for name in HUGGING_FACE),
]


def torchvision_beside_any_torch() -> None:
    """Beside another build of torch, torchvision's wheel lacks the schemas of two compiled operators."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library


def build(spec: str) -> tuple[Any, Any]:
    """The model of a spec and example inputs."""
    import torch

    source, _, name = spec.partition(":")
    if source == "torchvision":
        from torchvision.models import get_model

        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        size = 299 if name == "inception_v3" else 224
        return get_model(name, weights=None, **extra), torch.randn(1, 3, size, size)
    if source == "segmentation":
        from torchvision.models import get_model

        return get_model(name, weights=None, weights_backbone=None), torch.randn(1, 3, 64, 64)
    if source == "timm":
        import timm

        model = timm.create_model(name, pretrained=False)
        return model, torch.randn(1, *model.default_cfg["input_size"])
    return hugging_face(name)


def hugging_face(name: str) -> tuple[Any, Any]:
    """A small configuration of a Hugging Face architecture."""
    import torch
    import transformers as hf

    ids = torch.randint(5, 50, (2, 9))
    pixels = torch.randn(1, 3, 32, 32)
    text = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide = {**text, "intermediate_size": 48}
    quiet = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    grouped = {**wide, "num_attention_heads": 8, "num_key_value_heads": 2, **quiet}
    image = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
             "image_size": 32, "patch_size": 8}  # fmt: skip
    both = {"input_ids": ids, "decoder_input_ids": ids}
    made: dict[str, Any] = {
        "bert": lambda: (hf.BertForSequenceClassification(hf.BertConfig(**wide)), ids),
        "roberta": lambda: (hf.RobertaForSequenceClassification(hf.RobertaConfig(**wide, **quiet)), ids),
        "albert": lambda: (
            hf.AlbertForSequenceClassification(hf.AlbertConfig(**wide, embedding_size=16)), ids),
        "electra": lambda: (
            hf.ElectraForSequenceClassification(hf.ElectraConfig(**wide, embedding_size=16)), ids),
        "distilbert": lambda: (hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=48)), ids),
        "gpt2": lambda: (
            hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, **quiet)), ids),
        "gpt_neox": lambda: (hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**wide, **quiet)), ids),
        "llama": lambda: (hf.LlamaForCausalLM(hf.LlamaConfig(**grouped)), ids),
        "mistral": lambda: (hf.MistralForCausalLM(hf.MistralConfig(**grouped)), ids),
        "qwen2": lambda: (hf.Qwen2ForCausalLM(hf.Qwen2Config(**grouped)), ids),
        "opt": lambda: (
            hf.OPTForCausalLM(hf.OPTConfig(**text, ffn_dim=48, word_embed_proj_dim=32, **quiet)), ids),
        "t5": lambda: (hf.T5ForConditionalGeneration(hf.T5Config(
            vocab_size=60, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
            decoder_start_token_id=0)), both),
        "bart": lambda: (hf.BartForConditionalGeneration(hf.BartConfig(
            vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, **quiet)), both),
        "whisper": lambda: (hf.WhisperForConditionalGeneration(hf.WhisperConfig(
            vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8,
            max_source_positions=20, decoder_start_token_id=1, **quiet)),
            {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": ids}),
        "wav2vec2": lambda: (hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(
            **wide, conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4)), torch.randn(1, 800)),
        "vit": lambda: (hf.ViTForImageClassification(hf.ViTConfig(**image)), pixels),
        "deit": lambda: (hf.DeiTForImageClassification(hf.DeiTConfig(**image)), pixels),
        "clip": lambda: (
            hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**image, projection_dim=16)), pixels),
        "segformer": lambda: (hf.SegformerForImageClassification(hf.SegformerConfig(
            hidden_sizes=[16, 32], depths=[1, 1], num_encoder_blocks=2, num_attention_heads=[2, 4],
            sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2])), pixels),
        "swin": lambda: (hf.SwinForImageClassification(hf.SwinConfig(
            image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4],
            window_size=4)), pixels),
    }  # fmt: skip
    return made[name]()


def settle(model: Any) -> Any:
    """Constant parameters and statistics made random, so that faults show."""
    import torch

    for module in model.modules():
        if isinstance(getattr(module, "running_var", None), torch.Tensor):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        if parameter.is_floating_point() and (parameter.ndim <= 1 or parameter.std() == 0):
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def examine(spec: str) -> dict[str, Any]:
    """Trace, prune and prove one model; what came out."""
    import torch
    from torch.utils._pytree import tree_map

    import shapleaf as sl

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs = build(spec)
    settle(model)
    inputs = tree_map(
        lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, inputs
    )
    started = time.process_time()
    graph = sl.trace(model, inputs)
    row: dict[str, Any] = {
        "trace s": time.process_time() - started,
        "groups": len(graph),
        "units": sum(group.size for group in graph),
        "not exact": sum(not group.exact for group in graph),
        "blocked": sum(bool(group.blocked) for group in graph),
    }
    for name, shares in (("half", (0.5,)), ("random", (0.2, 0.35, 0.5, 0.65))):
        plan = shortened(graph, shares)
        row[f"{name} params"] = plan.after.params / plan.before.params
        sl.prune(model, plan)
        only = sl.plan(graph, {g.name: plan.keep[g.name] for g in graph if g.exact and not g.blocked})
        row[f"{name} error"] = sl.prune(model, only).receipt.error
    return row


def shortened(graph: Any, shares: tuple[float, ...]) -> Any:
    """A plan that removes a share drawn for each group, tied groups alike."""
    import shapleaf as sl

    draw = random.Random(0)
    counts: dict[str, int] = {}
    keep = {}
    for group in graph:
        if not group.blocked:
            portions = graph.portions(group.name)
            kept = counts.setdefault(
                graph.tied(group.name)[0], max(1, round(portions * (1 - draw.choice(shares))))
            )
            keep[group.name] = sorted(draw.sample(range(group.size), kept * group.size // portions))
    return sl.plan(graph, keep)


def run(spec: str) -> dict[str, Any]:
    """Examine one model in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", spec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"failure": f"more than {LIMIT} s"}
    last = (done.stdout.strip().splitlines() or [""])[-1]
    return json.loads(last) if last.startswith("{") else {"failure": done.stderr.strip()[-300:]}


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table."""
    proven = sum("failure" not in row for row in rows.values())
    free = sum("failure" not in row and not row["blocked"] for row in rows.values())
    lines = [
        "# Architectures, told nothing",
        "",
        (
            f"`python benchmarks/architectures.py`: {proven} of {len(rows)} models traced, pruned by half "
            f"and by random shares per group, and proven equal to the masked model; {free} without any group "
            "that the model's own code holds back. Error: of the exact groups, masked against pruned, "
            "relative to the largest output, in double precision. Params: what is left of them."
        ),
        "",
        (
            "| model | groups | units | not exact | held back | half: params, error | random: params, error "
            "| trace s |"
        ),
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for spec, row in rows.items():
        if "failure" in row:
            lines.append(f"| {spec} | {str(row['failure'])[:160].replace('|', '/')} | | | | | | |")
            continue
        parts = [f"{row[f'{n} params']:.3f}, {row[f'{n} error']:.0e}" for n in ("half", "random")]
        cells = [
            row["groups"],
            row["units"],
            row["not exact"],
            row["blocked"],
            *parts,
            f"{row['trace s']:.2f}",
        ]
        lines.append(f"| {spec} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="shell patterns of specs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help="run failed ones again")
    options = parser.parse_args()
    if options.one:
        try:
            torchvision_beside_any_torch()
            row = examine(options.one)
        except Exception as error:  # noqa: BLE001 - whatever a model does is a row of the table
            row = {"failure": f"{type(error).__name__}: {error}"[:400]}
        print(json.dumps(row))
        return
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for spec in SPECS:
        known = spec in rows and not (options.again and "failure" in rows[spec])
        if any(fnmatchcase(spec, pattern) for pattern in options.patterns) and not known:
            rows[spec] = run(spec)
            print(spec, rows[spec], flush=True)
            ordered = {name: rows[name] for name in SPECS if name in rows}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(markdown(ordered))


if __name__ == "__main__":
    main()
