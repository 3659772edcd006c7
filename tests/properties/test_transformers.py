"""A language model of Hugging Face, told nothing: traced, pruned, trained on, and rebuilt elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import gap, half_plan, prove_exact, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
pytest.importorskip("transformers")

CONFIG = {"vocab_size": 30, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 16, "use_cache": False,
          "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
BUILD = f"""
import conftest, torch, transformers
torch.manual_seed(5)
model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{CONFIG!r})).double().eval()
"""
REPLAY = (
    BUILD
    + """
import sys
import shapleaf as sl
receipt, weights, words, expected = sys.argv[1:]
sl.replay(model, sl.Receipt.load(receipt)).load_state_dict(torch.load(weights))
assert model.transformer.h[0].attn.split_size == 8
print(float((model(torch.load(words)).logits - torch.load(expected)).abs().max()))
"""
)


def gpt2() -> nn.Module:
    names: dict[str, Any] = {}
    exec(BUILD.replace("import conftest, ", "import "), names)
    model: nn.Module = names["model"]
    return model


def test_half_of_a_gpt2_trains_on_and_is_rebuilt_in_another_process(tmp_path: Path) -> None:
    model = gpt2()
    words = torch.randint(0, 30, (4, 9), generator=torch.Generator().manual_seed(0))
    graph = sl.trace(model, words)
    heads, hidden = ("transformer.h.{}.attn.c_attn", "transformer.h.{}.mlp.c_fc")
    for i in range(2):
        assert (graph[heads.format(i)].size, graph[heads.format(i)].exact) == (4, True)
        assert (graph[hidden.format(i)].size, graph[hidden.format(i)].exact) == (64, True)
    assert [(g.size, g.exact) for g in graph if g.size == 16] == [(16, False)]
    assert not any(group.blocked for group in graph)
    prove_exact(model, words, graph)

    before = sum(p.numel() for p in model.parameters())
    pruned, receipt = sl.prune(model, half_plan(graph))
    assert sum(p.numel() for p in pruned.parameters()) == receipt.plan.after.params < before / 2
    optimizer = torch.optim.AdamW(pruned.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(pruned(words).logits[:, :-1].flatten(0, 1), words[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]

    files = [tmp_path / name for name in ("receipt.safetensors", "weights.pt", "words.pt", "logits.pt")]
    receipt.save(files[0])
    torch.save(pruned.state_dict(), files[1])
    torch.save(words, files[2])
    (logits,) = run(pruned, words)
    torch.save(logits, files[3])
    tests = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = [{str(tests)!r}, {str(Path(sl.__file__).parents[1])!r}]\n{REPLAY}"
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, files)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout.splitlines()[-1]) < 1e-12
    assert gap(run(pruned, words), [logits]) == 0
