"""The table of Hugging Face architectures: all kinds are there, and what is built is small."""

from __future__ import annotations

import sys

import pytest

from shapleaf.errors import MissingExtraError
from shapleaf.testing import assert_prunable, catalogue, configurations
from shapleaf.testing.configurations import CONFIGURATIONS


def test_all_kinds_are_there() -> None:
    kinds = {entry.inputs for entry in CONFIGURATIONS.values()}
    assert kinds == {"words", "pairs", "image", "photo", "speech", "spectrum"}
    assert sum("ForCausalLM" in entry.model for entry in CONFIGURATIONS.values()) >= 15
    assert sum("SemanticSegmentation" in entry.model for entry in CONFIGURATIONS.values()) >= 2
    grouped = [
        name
        for name, entry in CONFIGURATIONS.items()
        if 1 < entry.options.get("num_key_value_heads", 0) < entry.options["num_attention_heads"]
    ]
    assert {"llama", "qwen2", "gemma2", "phi3"} <= {*grouped}


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'shapleaf\[huggingface\]'"):
        configurations.build("bert")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_one_is_small_and_prunable(name: str) -> None:
    pytest.importorskip("transformers")
    model, inputs = catalogue.build(f"hf:{name}")
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    assert_prunable(model, inputs)
