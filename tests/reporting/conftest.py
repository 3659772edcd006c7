"""Reports made by hand, as evaluate would return them: a VGG, a ResNet-50, rows alone, and a hostile one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import robust
import sides
from shapleaf.records import (
    Blocked,
    Cost,
    Edit,
    Graph,
    Group,
    Measurement,
    Plan,
    Receipt,
    Report,
    Scores,
    TensorInfo,
)

VGG = dict(zip((f"features.{i}" for i in (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)),
               (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512), strict=True))  # fmt: skip
RESNET = {"conv1": 64} | {
    f"layer{stage + 1}.{block}.{part}": width * (4 if part == "conv3" else 1)
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)))
    for block in range(blocks)
    for part in ("conv1", "conv2", "conv3", "downsample.0")
    if part != "downsample.0" or block == 0
}  # 53 groups
ROWS = (
    Measurement(metric="accuracy", value=97.43, low=97.1, high=97.73, reference=98.12, reference_low=97.83,
                reference_high=98.37, unit="%"),
    Measurement(metric="loss", value=0.0912, low=0.0861, high=0.0963, reference=0.0874, reference_low=0.0821,
                reference_high=0.0927, better="lower"),
    Measurement(metric="agreement", value=98.4, low=98.13, high=98.63, unit="%"),
    Measurement(metric="params", value=10_156_000.0, reference=14_728_266.0, better="lower"),
    Measurement(metric="MACs", value=178_900_512.0, reference=313_733_120.0, unit="MAC", better="lower"),
    Measurement(metric="latency (wall)", value=171.2, low=168.0, high=176.9, reference=334.1,
                reference_low=329.8, reference_high=341.0, unit="ms per batch of 100", better="lower"),
    Measurement(metric="latency (CPU)", value=170.4, low=169.2, high=171.9, reference=333.0,
                reference_low=331.7, reference_high=335.2, unit="ms per batch of 100", better="lower"),
)  # fmt: skip


def graph(sizes: dict[str, int], **more: object) -> Graph:
    tensors = tuple(
        TensorInfo(name=f"{name}.weight", shape=(size, 9), dtype="float32", parameter=True)
        for name, size in sizes.items()
    )
    groups = tuple(Group(name=name, size=size, slices=(), sites=()) for name, size in sizes.items())
    return Graph(groups=groups, tensors=tensors, **more)


def scores_of(traced: Graph, criterion: str = "Shapley(Permutation(samples=8))") -> Scores:
    """Heavy-tailed scores, a tenth of them negative, with standard errors."""
    draw = torch.Generator().manual_seed(0)
    values, errors = {}, {}
    for group in traced:
        noise = torch.rand(group.size, generator=draw)
        values[group.name] = 0.8 / group.size * (noise.clamp(min=1e-3).log() ** 2 - 0.04)
        errors[group.name] = 0.5 / group.size * (0.5 + torch.rand(group.size, generator=draw))
    return Scores(graph=traced, values=values, stderr=errors, samples=1000, criterion=criterion,
                  evaluations={group.name: 8 * group.size for group in traced},
                  settings={"aggregate": "MeanPlusStd(2)", "removal": "Zero()", "seed": "0"})  # fmt: skip


def plan_of(scores: Scores, keep: float = 0.55) -> Plan:
    """The best units by score, a smaller share in the later groups."""
    shares = torch.linspace(0.95, 2 * keep - 0.95, len(scores.values)).tolist()
    counts = {name: max(1, round(share * len(values)))
              for share, (name, values) in zip(shares, scores.values.items(), strict=True)}  # fmt: skip
    for tie in scores.graph.ties:
        counts |= dict.fromkeys(tie, min(counts[name] for name in tie))
    kept = {
        name: tuple(sorted(values.argsort(descending=True, stable=True)[: counts[name]].tolist()))
        for name, values in scores.values.items()
    }
    units = sum(len(values) for values in scores.values.values())
    return Plan(graph=scores.graph, keep=kept,
                before=Cost(units=units, params=14_728_266, macs=313_733_120),
                after=Cost(units=sum(map(len, kept.values())), params=10_156_000, macs=178_900_512),
                made_by={"budget": "Macs(keep=0.57)", "strategy": "Global()", "round to": "1"})  # fmt: skip


@pytest.fixture(scope="session")
def vgg() -> Report:
    """13 groups, the largest of 512 units, with all that a report can hold."""
    traced = graph(
        VGG,
        blocked=(
            Blocked(tensor="features.0.weight", dim=1, size=3, reason="input of the model"),
            Blocked(tensor="classifier.6.weight", dim=0, size=10, reason="output of the model"),
            Blocked(tensor="classifier.6.bias", dim=0, size=10, reason="output of the model"),
            *(
                Blocked(tensor=f"attend.{i}.weight", dim=0, size=512, reason="no rule for aten.fft_rfft")
                for i in range(11)
            ),
        ),
        ties=(("features.34", "features.37", "features.40"),),
        notes=("features.44 is never called in eval mode; its axes were left alone.",),
    )
    scores = scores_of(traced)
    plan = plan_of(scores)
    edits = tuple(
        Edit(module=name, attribute="out_channels", before=VGG[name], after=len(units))
        for name, units in plan.keep.items()
    )
    receipt = Receipt(plan=plan, edits=edits, biases=(("features.3.bias", 50),), error=3.1e-7,
                      compensation="LeastSquares(ridge=0.001)")  # fmt: skip
    settings = {"examples": "10,000", "batch": "100", "device": "cpu", "dtype": "float32", "threads": "2",
                "torch": "2.13.0", "shapleaf": "0.1.0",
                "command": "shapleaf slim torchvision:vgg16_bn --data cifar10 --macs-keep 0.57"}  # fmt: skip
    return Report(title="VGG16 on CIFAR-10", rows=ROWS, receipt=receipt, scores=scores, settings=settings)


@pytest.fixture(scope="session")
def minimal() -> Report:
    return Report(title="Rows alone", rows=(Measurement(metric="accuracy", value=91.25, unit="%"),))


@pytest.fixture(scope="session")
def resnet() -> Report:
    """54 groups, one of 4,096 units."""
    scores = scores_of(graph(RESNET | {"fc1": 4096}), "Taylor()")
    receipt = Receipt(plan=plan_of(scores))
    return Report(title="ResNet-50 on ImageNet", rows=ROWS, receipt=receipt, scores=scores)


@pytest.fixture(scope="session")
def hostile() -> Report:
    """Markup, template code and unbroken lines wherever text can stand; far too much of everything."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}</title></style>"
    long = "x" * 300
    sizes = {f"{evil}{long}{i}": 300 for i in range(300)}
    traced = graph(
        sizes,
        blocked=tuple(
            Blocked(tensor=f"{long}{i}", dim=0, size=9, reason=f"{evil}{i % 150}") for i in range(3000)
        ),
        ties=tuple((f"{evil}{long}{i}", f"{evil}{long}{i + 1}") for i in range(0, 300, 2)),
        notes=(evil, long) * 200,
    )
    scores = scores_of(traced, evil)
    edits = tuple(Edit(module=f"{evil}{i}", attribute=long, before=9, after=8) for i in range(1000))
    receipt = Receipt(plan=plan_of(scores), edits=edits, biases=((evil, 3),) * 99, compensation=evil)
    row = Measurement(metric=evil, value=float("nan"), reference=1.0, unit=long)
    many = {f"{evil}{i}": long * 9 for i in range(500)}
    return Report(
        title=evil, rows=(row,), receipt=receipt, scores=scores, settings=many | {"command": long * 99}
    )


@pytest.fixture(scope="session")
def lost() -> Report:
    """What six methods lost on 19 corruptions, and nothing else."""
    found = robust.robustness()
    return Report(title="ResNet-20 on CIFAR-10", rows=(), robustness=found, settings=found.settings)


@pytest.fixture(scope="session")
def beside() -> Report:
    """Ten criteria side by side, with a compensation, and nothing else."""
    found = sides.comparison(10, refit=True)
    return Report(title="Ten criteria", rows=(), comparison=found, settings=found.settings)


@pytest.fixture(scope="session")
def beside_hostile(lost_hostile: Report) -> Report:
    """All that is hostile, and sixty criteria of the same kind."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}" + "x" * 60
    return replace(lost_hostile, comparison=sides.comparison(60, prefix=evil, refit=True))


@pytest.fixture(scope="session")
def lost_hostile(hostile: Report) -> Report:
    """The hostile report, and as much of the same about robustness."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}" + "x" * 60
    methods = tuple(map(str, range(12)))
    found = robust.robustness(methods=methods, points=23, shifts=60, nets=2, prefix=evil)
    return replace(hostile, robustness=found)
