"""Pruned transformers train on with the optimizer that they had, and are rebuilt in another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl

STEPS, WORDS = 20, 50


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size, self.dropout = heads, width // heads, 0.1
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (
            part.view(n, length, self.heads, self.head_size).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        return self.out(y.transpose(1, 2).reshape(n, length, self.heads * self.head_size))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """A causal language model whose output layer is its embedding."""

    def __init__(self, width: int, heads: int, depth: int, length: int = 64) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.norm(self.layers(self.words(ids) + self.places(places))))


def torchvision_vit(width: int, depth: int, heads: int, patch: int) -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    sizes = {"num_layers": depth, "num_heads": heads, "hidden_dim": width, "mlp_dim": 4 * width}
    model: nn.Module = models.VisionTransformer(4 * patch, patch, num_classes=10, **sizes)
    return model


def timm_vit(width: int, depth: int, heads: int, patch: int) -> nn.Module:
    timm = pytest.importorskip("timm")
    sizes = {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": heads}
    model: nn.Module = timm.create_model("vit_base_patch16_224", img_size=4 * patch, num_classes=10, **sizes)
    return model


def gpt2(width: int, depth: int, heads: int) -> nn.Module:
    hf = pytest.importorskip("transformers")
    sizes = {"n_embd": width, "n_layer": depth, "n_head": heads, "n_positions": 64, "vocab_size": WORDS}
    model: nn.Module = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))
    return model


@dataclass(frozen=True, kw_only=True)
class Case:
    """A transformer: how it is built, which groups it must offer, and which two of its parameters are one."""

    build: Callable[[], nn.Module]
    groups: dict[str, int]
    image: int = 0
    tied: tuple[str, str] | None = None
    rate: float = 1e-3

    def batch(self, n: int = 8) -> Tensor:
        """Images of the size given, else words."""
        random = torch.Generator().manual_seed(1)
        if self.image:
            return torch.randn(n, 3, self.image, self.image, generator=random)
        return torch.randint(WORDS, (n, 24), generator=random)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Of the first classes in turn, or of each next word."""
        found = logits(model(batch))
        if self.image:
            return F.cross_entropy(found, torch.arange(len(batch)))
        return F.cross_entropy(found[:, :-1].flatten(0, 1), batch[:, 1:].flatten())

    def same(self, model: nn.Module) -> bool:
        """Whether the tied parameters are one."""
        return self.tied is None or len({id(model.get_parameter(name)) for name in self.tied}) == 1


TV, TIMM, HF = "encoder.layers.encoder_layer_{}.mlp.0", "blocks.{}.attn.qkv", "transformer.h.{}.attn.c_attn"
TV_HEADS = "encoder.layers.encoder_layer_{}.self_attention"
HF_TIED = ("transformer.wte.weight", "lm_head.weight")
OWN_TIED = ("words.weight", "head.weight")


def each(name: str, depth: int, size: int) -> dict[str, int]:
    return {name.format(i): size for i in range(depth)}


SMALL = {
    "torchvision's ViT": Case(
        build=lambda: torchvision_vit(32, 2, 4, 8),
        image=32,
        rate=3e-3,
        groups=each(TV, 2, 128) | each(TV_HEADS, 2, 4) | {"class_token": 32},
    ),
    "timm's ViT": Case(
        build=lambda: timm_vit(32, 2, 4, 8), groups=each(TIMM, 2, 4) | {"cls_token": 32}, image=32, rate=3e-3
    ),
    "a GPT": Case(
        build=lambda: GPT(32, 4, 2),
        groups=each("layers.{}.attention.qkv", 2, 4) | each("layers.{}.mlp.0", 2, 128),
        tied=OWN_TIED,
        rate=1e-2,
    ),
    "GPT-2": Case(
        build=lambda: gpt2(32, 2, 4),
        groups=each(HF, 2, 4) | each("transformer.h.{}.mlp.c_fc", 2, 128),
        tied=HF_TIED,
        rate=1e-2,
    ),
}
LARGE = {
    "torchvision's ViT-B/16": Case(
        build=lambda: torchvision_vit(768, 12, 12, 16), image=64, rate=3e-4,
        groups=each(TV, 12, 3072) | each(TV_HEADS, 12, 12) | {"class_token": 768},
    ),
    "timm's ViT-B/16": Case(
        build=lambda: timm_vit(768, 12, 12, 16), groups=each(TIMM, 12, 12) | {"cls_token": 768}, image=64,
        rate=1e-4,
    ),
    "a larger GPT": Case(
        build=lambda: GPT(384, 6, 6),
        groups=each("layers.{}.attention.qkv", 6, 6) | each("layers.{}.mlp.0", 6, 1536),
        tied=OWN_TIED,
    ),
    "a larger GPT-2": Case(
        build=lambda: gpt2(384, 6, 6),
        groups=each(HF, 6, 6) | each("transformer.h.{}.mlp.c_fc", 6, 1536),
        tied=HF_TIED,
    ),
}  # fmt: skip
CASES = SMALL | LARGE
FAST = [name for name in SMALL if name != "GPT-2"]  # the import of transformers alone takes seconds
SLOW = [name for name in CASES if name not in FAST]


def logits(output: Any) -> Tensor:
    found: Tensor = getattr(output, "logits", output)
    return found


def step(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor) -> float:
    optimizer.zero_grad()
    loss = case.loss(model, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_half_trains_on_and_is_rebuilt_in_another_process(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, batch = case.build().train(), case.batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.rate)
    step(case, model, optimizer, batch)

    graph = sl.trace(model, batch[:2])
    assert case.groups.items() <= {group.name: group.size for group in graph}.items()
    open_groups = [group for group in graph if not group.blocked]
    assert case.groups.keys() <= {group.name for group in open_groups}
    plan = sl.plan(graph, {group.name: range(0, group.size, 2) for group in open_groups})
    moments = {id(p): optimizer.state[p]["exp_avg"].norm() for p in model.parameters()}
    receipt = sl.prune_(model, plan, optimizer=optimizer)
    check_state(model, optimizer, moments)
    assert sum(p.numel() for p in model.parameters()) == plan.after.params < 0.8 * plan.before.params
    assert case.same(model)

    losses = [step(case, model, optimizer, batch) for _ in range(STEPS)]
    assert all(torch.tensor(losses).isfinite())
    assert losses[-1] < 0.7 * losses[0]
    assert case.same(model)
    check_state(model, optimizer)

    assert rebuilt(name, model, receipt, batch, tmp_path) < 1e-6


def check_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, before: dict[int, Tensor] | None = None
) -> None:
    """Both moments of every parameter have its shape, and were cut, not made anew."""
    assert {id(p) for p in optimizer.state} == {id(p) for p in model.parameters()}
    for parameter, state in optimizer.state.items():
        assert parameter.grad is not None
        assert parameter.shape == parameter.grad.shape == state["exp_avg"].shape == state["exp_avg_sq"].shape
        if before is not None:
            assert 0 <= state["exp_avg"].norm() <= before[id(parameter)] * (1 + 1e-6)
            assert bool(state["exp_avg"].any()) == bool(before[id(parameter)] > 0)


def rebuilt(name: str, model: nn.Module, receipt: sl.Receipt, batch: Tensor, folder: Path) -> float:
    """How far the outputs of a model rebuilt from files, in a process of its own, are from this one's."""
    receipt.save(folder / "receipt.safetensors")
    save_model(model, str(folder / "weights.safetensors"))
    save_file({"batch": batch}, folder / "batch.safetensors")
    command = [sys.executable, "-W", "ignore", __file__, name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        here = logits(model.eval()(batch))
    return float((load_file(folder / "outputs.safetensors")["outputs"] - here).abs().max())


def elsewhere(name: str, folder: Path) -> None:
    """In the other process: a fresh model, other random weights, takes the pruned shapes and weights."""
    torch.manual_seed(99)
    case = CASES[name]
    model = sl.replay(case.build().eval(), sl.Receipt.load(folder / "receipt.safetensors"))
    load_model(model, folder / "weights.safetensors", strict=True)
    assert case.same(model)
    with torch.no_grad():
        outputs = logits(model(load_file(folder / "batch.safetensors")["batch"]))
    save_file({"outputs": outputs.contiguous()}, folder / "outputs.safetensors")


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(sl.__file__).parents[1])]
    __import__("conftest")  # torchvision beside any torch, one thread
    elsewhere(sys.argv[1], Path(sys.argv[2]))
