"""Time to score all units by relevance, beside a plain training step and beside zennit's LRP.

    python benchmarks/relevance.py

Networks of torchvision with random weights, one batch of random images, one thread. All take turns, several
times over: a training step (forward, loss, gradients of all weights), ``attribute`` on the batch, which runs
its check of the first batch too, the one forward and backward of every further batch, and zennit's forward
and backward, in a model that it has made ready before. Every turn is kept at once; a re-run does what is
missing, and more ``--repeats`` add turns.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, environment, save, spearman, table
from torch import Tensor, nn
from torch.nn import functional

import shapleaf as sl
from shapleaf import _context, passes
from shapleaf.data import Batch
from shapleaf.masking import Gates
from tracing import torchvision_models

MODELS = ("resnet50", "vgg16_bn", "vit_b_16")
RULES: dict[str, Any] = {
    "epsilon": sl.Epsilon(),
    "z+": sl.ZPlus(),
    "gamma": sl.Gamma(),
    "alpha 2, beta 1": sl.AlphaBeta(),
}
TRANSFORMER = {
    "epsilon, CP": sl.preset_composite("cp-lrp"),
    "AttnLRP, gamma": sl.preset_composite("attnlrp-gamma"),
}
LIMITS = {"epsilon": 1.5, "epsilon, CP": 1.5}
LIMIT = 4.0
"""Training steps that a rule may take."""

Ways = dict[str, Callable[[], Any]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    zoo, path = torchvision_models(), options.out / "relevance.json"
    settings = {"batch": options.batch, "image_size": options.image_size}
    found = json.loads(path.read_text()) if path.exists() else {"settings": settings, "models": {}}
    if found["settings"] != settings:
        raise SystemExit(f"{path} was made with {found['settings']}; remove it, or choose another folder.")
    found["environment"] = environment() | {"zennit": metadata.version("zennit")}
    for name in options.models:
        row = found["models"].setdefault(name, {})
        missing = options.repeats - len(row.get("turns", []))
        if missing > 0:
            torch.manual_seed(0)
            study = Study(getattr(zoo, name)(weights=None), options)
        for _ in range(missing):
            study.turn(row)
            print(f"{name}: {row['turns'][-1]}", flush=True)
            save(options.out, "relevance", found, markdown(found))


class Study:
    """One network, its graph and a batch."""

    def __init__(self, model: nn.Module, options: argparse.Namespace) -> None:
        self.model = model.eval()
        self.transformer = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
        if self.transformer:  # torchvision's starts with a last layer of zeros, for which nothing is relevant
            nn.init.normal_(model.heads.head.weight, std=0.02)
        self.trained = copy.deepcopy(model).train()  # whose running statistics change
        self.x = torch.randn(options.batch, 3, options.image_size, options.image_size)
        self.y = torch.randint(1000, (options.batch,))
        self.graph = sl.trace(model, self.x[:1])
        self.gates = Gates(self.graph.groups)
        self.rules = RULES | (TRANSFORMER if self.transformer else {})

        self.ways = self.made()

    def made(self) -> Ways:
        """All that is timed, by name."""
        ways: Ways = {"training step": self.train, "Taylor | attribute": partial(self.attribute, sl.Taylor())}
        for name, rule in self.rules.items():
            lrp = sl.LRP(rule)
            ways |= {
                f"{name} | attribute": partial(self.attribute, lrp),
                f"{name} | pass": partial(self.once, lrp),
            }
            if not self.transformer:  # zennit knows no attention and no LayerNorm
                ways[f"{name} | zennit"] = Zennit(self.model, name, self.x, self.y)
        return ways

    def turn(self, row: dict[str, Any]) -> None:
        """Add the seconds of CPU time of each way; and how ranks agree with zennit's."""
        seconds: dict[str, float] = {}
        last: dict[str, Any] = {}
        for name, way in self.ways.items():
            start = time.process_time()
            last[name] = way()
            seconds[name] = round(time.process_time() - start, 4)
            if name.endswith("pass"):
                del last[name]  # which holds all activations
        row |= {"units": sum(group.size for group in self.graph.groups), "groups": len(self.graph.groups)}
        row["ranks agree"] = {
            name: self.agreement(last[f"{name} | attribute"], last[f"{name} | zennit"])
            for name in self.rules
            if f"{name} | zennit" in last
        }
        row.setdefault("turns", []).append(seconds)

    def train(self) -> None:
        """A plain training step, without its optimizer."""
        functional.cross_entropy(self.trained(self.x), self.y).backward()
        self.trained.zero_grad()

    def attribute(self, criterion: sl.Criterion) -> sl.Scores:
        return sl.attribute(self.model, self.graph, [(self.x, self.y)], criterion, aggregate=sl.Mean())

    def once(self, lrp: sl.LRP) -> passes.Pass:
        """The forward and the backward of a batch."""
        cost, reader = partial(lrp.target.cost, loss=_context.cross_entropy), partial(lrp.reader, self.graph)
        with _context.inference(self.model):
            return passes.once(self.model, self.gates, Batch(self.x, self.y), cost, lrp.needs, reader=reader)

    def agreement(self, scores: sl.Scores, theirs: dict[str, Tensor]) -> float:
        """The lowest rank correlation over groups that one convolution makes, which is what zennit scores."""
        each = []
        for group in self.graph.groups:
            owners = [piece.tensor.removesuffix(".weight") for piece in group.slices if piece.dim == 0]
            made = [owner for owner in owners if owner in theirs]
            if len(made) == 1:
                each.append(spearman(scores.values[group.name], theirs[made[0]]))
        return round(min(each), 5)


class Zennit:
    """zennit's relevance of all filters, in a copy of the model that has its hooks."""

    def __init__(self, model: nn.Module, rule: str, x: Tensor, y: Tensor) -> None:
        from zennit import composites, layer, rules, torchvision, types

        self.x, self.y = x.clone().requires_grad_(), functional.one_hot(y, 1000).float()
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # which its hooks do not stand
        chosen = {
            "epsilon": rules.Epsilon(),
            "z+": rules.ZPlus(),
            "gamma": rules.Gamma(),
            "alpha 2, beta 1": rules.AlphaBeta(),
        }[rule]
        layers = [
            (types.Activation, rules.Pass()),
            (types.BatchNorm, rules.Pass()),
            (types.AvgPool, rules.Norm()),
            (layer.Sum, rules.Norm()),
            (types.Convolution, chosen),
            (types.Linear, chosen),
        ]
        residual = type(model).__name__ == "ResNet"
        canonizer = torchvision.ResNetCanonizer() if residual else torchvision.VGGCanonizer()
        composites.LayerMapComposite(layers, canonizers=[canonizer]).register(self.model)
        self.kept: dict[str, Tensor] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(partial(self._keep, name))

    def _keep(self, name: str, _: nn.Module, __: Any, out: Tensor) -> None:
        self.kept[name] = out

    def __call__(self) -> dict[str, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about hooks on inputs without a gradient
            out = self.model(self.x)
            passed = torch.autograd.grad(out, [*self.kept.values()], self.y * out.detach())
        return {name: part.sum((2, 3)).abs().mean(0) for name, part in zip(self.kept, passed, strict=True)}


def least(row: dict[str, Any]) -> dict[str, float]:
    """The least seconds of each way over the turns.

    >>> least({"turns": [{"a": 2.0, "b": 1.0}, {"a": 1.5, "b": 3.0}]})
    {'a': 1.5, 'b': 1.0}
    """
    return {name: min(turn[name] for turn in row["turns"]) for name in row["turns"][0]}


def markdown(found: dict[str, Any]) -> str:
    settings, size = found["settings"], found["settings"]["image_size"]
    turns = min(len(row["turns"]) for row in found["models"].values())
    lines = [
        "# Time to score all units by relevance",
        "",
        "`python benchmarks/relevance.py`",
        "",
        f"CPU seconds, least of {turns} turns or more, {settings['batch']} images of "
        f"3 x {size} x {size}, random weights. `attribute` on one batch; its forward and backward alone, "
        "which is what further batches cost; and zennit's, its composite being registered before. In "
        "brackets: in training steps (forward, loss, gradients of all weights), of which epsilon may take "
        f"{LIMITS['epsilon']:g} and other rules {LIMIT:g}. -: zennit has no rules for attention. Ranks "
        "agree: the lowest Spearman correlation with zennit's scores in a layer. "
        + ", ".join(f"{key} {value}" for key, value in found["environment"].items())
        + ".",
    ]
    for name, row in found["models"].items():
        seconds = least(row)
        step = seconds["training step"]
        rows = [["Taylor", _told(seconds["Taylor | attribute"], step), "-", "-", "-", "-"]]
        for rule in (key.removesuffix(" | pass") for key in seconds if key.endswith("pass")):
            mine, theirs = seconds[f"{rule} | pass"], seconds.get(f"{rule} | zennit")
            rows.append(
                [
                    rule,
                    _told(seconds[f"{rule} | attribute"], step),
                    _told(mine, step),
                    _told(theirs, step) if theirs else "-",
                    f"{mine / theirs:.2f}" if theirs else "-",
                    f"{row['ranks agree'][rule]:.5f}" if theirs else "-",
                ]
            )
        lines += [
            "",
            f"## {name}: {row['units']:,} units in {row['groups']} groups; a training step {step:.2f} s",
            "",
        ]
        header = ["", "attribute", "a pass", "zennit", "pass / zennit", "ranks agree"]
        lines.append(table(header, rows))
    return "\n".join(lines)


def _told(seconds: float, step: float) -> str:
    return f"{seconds:.2f} ({seconds / step:.2f})"


if __name__ == "__main__":
    main()
