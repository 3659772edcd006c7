"""Pruning while the Trainer of transformers trains, stopped in the middle and resumed.

    pip install 'shapleaf[huggingface]'
    python examples/huggingface_trainer.py

A small residual network learns the built-in digits and loses half of its MACs on the way.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

import shapleaf as sl
from shapleaf.integrations.datasets import load_data
from shapleaf.integrations.huggingface import pruning_callback

STEPS = 160
SIZES = {"num_channels": 1, "num_labels": 10, "layer_type": "basic", "depths": [1, 1]}
SIZES |= {"embedding_size": 32, "hidden_sizes": [32, 64], "downsample_in_first_stage": False}


def batch(examples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    images, labels = zip(*examples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def trainer(folder: Path, steps: int) -> tuple[Trainer, Any]:
    """A new, whole model, its Trainer and the callback."""
    set_seed(0)
    data = load_data("digits", split="train")
    callback = pruning_callback(
        partial(
            sl.Pruner,
            calibration=batch([*data.sample(100, seed=0)]),
            budget=sl.Macs(keep=0.5),
            schedule=sl.Cubic(steps=4, every=20, start=40),
        )
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=80,
        per_device_train_batch_size=50,
        learning_rate=2e-3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    made = Trainer(
        ResNetForImageClassification(ResNetConfig(**SIZES)),
        arguments,
        data_collator=batch,
        train_dataset=data,
        eval_dataset=load_data("digits", split="test"),
        callbacks=[callback],
        compute_metrics=lambda found: {"accuracy": float((found[0].argmax(1) == found[1]).mean())},
    )
    return made, callback


def main(folder: Path) -> ResNetForImageClassification:
    """Train half of the steps, which the Trainer saves; start anew with a whole model, go on from there."""
    trainer(folder, STEPS // 2)[0].train()

    second, callback = trainer(folder, STEPS)
    second.train(resume_from_checkpoint=callback.resume(folder / f"checkpoint-{STEPS // 2}", second.model))
    print(f"{callback.pruner}: {sl.cost(sl.trace(second.model, torch.zeros(1, 1, 16, 16)))}")
    print(second.evaluate())
    return second.model


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
