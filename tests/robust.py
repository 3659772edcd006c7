"""A Robustness record made by hand, of any size, with numbers as real ones look."""

from __future__ import annotations

import math

import torch

from shapleaf.evaluation import verdict
from shapleaf.records import (
    ClassCounts,
    Excess,
    ExcessError,
    HeatMap,
    Limit,
    Measured,
    NoiseSimilarity,
    Pooled,
    Potential,
    Robustness,
    Slope,
    Subject,
)

METHODS = ("WT", "SiPP", "FT", "PFP", "Shapley", "Shapley+refit")
SHIFTS = {
    "gaussian noise 3": "noise", "shot noise 3": "noise", "impulse noise 3": "noise",
    "speckle noise 3": "noise",
    "gaussian blur 3": "blur", "glass blur 3": "blur", "defocus blur 3": "blur", "motion blur 3": "blur",
    "zoom blur 3": "blur", "snow 3": "weather", "frost 3": "weather", "fog 3": "weather",
    "brightness 3": "weather", "spatter 3": "weather", "contrast 3": "digital", "elastic 3": "digital",
    "pixelate 3": "digital", "jpeg 3": "digital", "saturate 3": "digital",
}  # fmt: skip
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DELTA = 0.005


def removed(points: int) -> list[float]:
    """Shares as a geometric spacing of keep ratios leaves them."""
    return [round(1 - 0.85 * (0.03 / 0.85) ** (i / max(points - 1, 1)), 4) for i in range(points)]


def knee(method: int, hard: float) -> float:
    """Where the accuracy of a method begins to fall."""
    return (0.93, 0.92, 0.68, 0.64, 0.72, 0.85)[method % 6] * (1 - 0.55 * hard)


def accuracy(base: float, share: float, bend: float) -> float:
    return base - (base - 10) / (1 + math.exp(-14 * (share - bend - 0.12))) + 0.6 * share * (share < bend)


def robustness(
    *,
    methods: tuple[str, ...] = METHODS,
    points: int = 12,
    shifts: int = 19,
    nets: int = 1,
    extras: bool = True,
    prefix: str = "",
) -> Robustness:
    """Subjects are a reference and a separate net for each net, then the pruned ones by method."""
    names = [*SHIFTS, *(f"more {i}" for i in range(max(0, shifts - len(SHIFTS))))][:shifts]
    families = {"clean": ""} | {prefix + name: prefix + SHIFTS.get(name, "more") for name in names}
    names = [prefix + name for name in names]
    methods = tuple(prefix + method for method in methods)
    hard = {"clean": 0.0} | {name: (0.15 + 0.8 * ((7 * i) % 19) / 19) for i, name in enumerate(names)}
    subjects = [Subject(name=f"dense {net}", role="reference", net=str(net)) for net in range(nets)]
    subjects += [Subject(name="separate", role="separate", net="0")]
    subjects += [
        Subject(name=f"{method} {100 * share:.0f} % {net}", method=method, removed=share, net=str(net))
        for net in range(nets)
        for method in methods
        for share in removed(points)
    ]
    curves = []
    for distribution in families:
        for one in subjects:
            base = 92.3 - 30 * hard[distribution] ** 1.5 - 0.3 * int(one.net)
            index = methods.index(one.method) if one.method else 0
            value = accuracy(base, one.removed, knee(index, hard[distribution])) if one.method else base
            curves += [Measured(subject=one.name, distribution=distribution, metric="accuracy", value=value,
                                low=value - 1.1, high=value + 1.0)]  # fmt: skip
            if one.method:
                agree = 97 - 0.8 * (base - value) - 3 * one.removed
                ends = {"low": agree - 0.9, "high": agree + 0.8, "other": f"dense {one.net}"}
                where = {"subject": one.name, "distribution": distribution}
                curves += [Measured(metric="agreement", value=agree, **where, **ends)]
            if one.role == "reference":
                where = {"subject": one.name, "distribution": distribution}
                curves += [
                    Measured(metric="agreement", value=86.0, low=84.5, high=87.5, other="separate", **where)
                ]
            error = 4 + 10 * hard[distribution] + 5 * one.removed
            curves += [Measured(subject=one.name, distribution=distribution, metric="calibration error",
                                value=error, low=error - 0.7, high=error + 0.7, better="lower")]  # fmt: skip
    potential = _potential(methods, points, families, hard, nets)
    excess = _excess(subjects, methods) if shifts else None
    return Robustness(
        subjects=tuple(subjects),
        curves=tuple(curves),
        potential=potential,
        excess=excess,
        verdict=verdict(potential, excess),
        similarity=_similarity(subjects) if extras else None,
        features=_features(subjects, methods) if extras else None,
        classes=tuple(_classes(subjects, name, methods) for name in list(families)[:3]) if extras else (),
        class_names=tuple(prefix + name for name in CLASSES) if extras else (),
        settings={"examples": "2,000", "resamples": "1000", "seed": "0", "torch": "2.13.0"},
    )


def _potential(
    methods: tuple[str, ...], points: int, families: dict[str, str], hard: dict[str, float], nets: int
) -> Potential:
    shares = removed(points)
    limits, pooled = [], []
    for index, method in enumerate(methods):
        values: dict[str, float] = {}
        for name, family in families.items():
            below = [share for share in shares if share <= knee(index, hard[name])]
            values[name] = below[-1] if below else 0.0
            above = shares[len(below)] if len(below) < len(shares) else None
            low, high = max(0, values[name] - 0.14), min(1, values[name] + 0.06)
            limits += [
                Limit(method=method, net=str(net), distribution=name, nominal=name == "clean", family=family,
                      delta=DELTA, value=values[name], low=low, high=high, probability=0.8,
                      below=below[-2] if len(below) > 1 else 0.0, above=above)
                for net in range(nets)
            ]  # fmt: skip
        groups = [("distribution", name, [name]) for name in families]
        groups += [("nominal", "nominal", ["clean"])]
        groups += [("shifted", "shifted", [name for name in families if name != "clean"])]
        groups += [("family", family, [name for name in families if families[name] == family])
                   for family in dict.fromkeys(families.values()) if family]  # fmt: skip
        for scope, name, members in groups:
            if not members:
                continue
            found = [values[one] for one in members]
            mean, worst = sum(found) / len(found), min(found)
            means = {"mean": mean, "mean_low": max(0, mean - 0.1), "mean_high": min(1, mean + 0.05)}
            worsts = {"worst": worst, "worst_low": max(0, worst - 0.14), "worst_high": min(1, worst + 0.06)}
            weakest = min(members, key=values.__getitem__)
            where = {"scope": scope, "name": name, "distributions": len(members), "nets": nets}
            pooled.append(Pooled(method=method, delta=DELTA, weakest=weakest, **where, **means, **worsts))
    return Potential(limits=tuple(limits), pooled=tuple(pooled), settings={"resamples": "1000"})


def _excess(subjects: list[Subject], methods: tuple[str, ...]) -> ExcessError:
    draw = torch.Generator().manual_seed(0)
    points = []
    for one in subjects:
        if one.role == "pruned":
            slope = 0.02 + 0.012 * methods.index(one.method)
            noise = 0.004 * float(torch.randn((), generator=draw, dtype=torch.float64))
            difference = slope * one.removed + noise
            points.append(Excess(subject=one.name, method=one.method, net=one.net, removed=one.removed,
                                 reference=0.18, value=0.18 + difference, difference=difference,
                                 low=difference - 0.008, high=difference + 0.008))  # fmt: skip
    slopes = tuple(Slope(method=method, value=0.02 + 0.012 * i, low=0.012 + 0.012 * i, high=0.029 + 0.012 * i,
                         points=sum(one.method == method for one in points))
                   for i, method in enumerate(methods))  # fmt: skip
    return ExcessError(slopes=slopes, points=tuple(points))


def _similarity(subjects: list[Subject]) -> NoiseSimilarity:
    epsilons = tuple(round(0.05 * i, 2) for i in range(0, 15, 2))
    mine = [one for one in subjects if one.net == "0"]
    level = torch.tensor([0.0 if s.role == "reference" else 0.11 if s.role == "separate" else
                          0.03 + 0.12 * s.removed**3 for s in mine], dtype=torch.float64)  # fmt: skip
    eps = torch.tensor(epsilons, dtype=torch.float64)
    match = 1 - level[:, None] - (level > 0)[:, None] * 0.4 * eps[None] * (0.4 + 3 * level[:, None])
    apart = 0.9 * (1 - match)
    draws = torch.tensor([-0.01, 0.0, 0.01], dtype=torch.float64)
    ends = torch.tensor([-0.015, 0.015], dtype=torch.float64)
    correct = (1000 * (0.92 - level[:, None] - 0.3 * eps[None]))[..., None] + 3 * torch.tensor([-1, 0, 1])
    return NoiseSimilarity(
        subjects=tuple(mine), against=("dense 0",) * len(mine), epsilons=epsilons, examples=1000, scored=1000,
        matching=(match[..., None] + draws).clamp(0, 1),
        matching_interval=(match[..., None] + ends).clamp(0, 1),
        distance=(apart[..., None] + draws).clamp(0), distance_interval=(apart[..., None] + ends).clamp(0),
        correct=correct.round().long(), settings={"draws": "3"},
    )  # fmt: skip


def _features(subjects: list[Subject], methods: tuple[str, ...]) -> HeatMap:
    chosen = [subjects[0], *[s for s in subjects if s.method == methods[0] and s.net == "0"][::3],
              *[s for s in subjects if s.role == "separate"]]  # fmt: skip
    strength = torch.tensor([0.5 if s.role == "separate" else 0.95 - 0.5 * s.removed**4 for s in chosen])
    mean = (strength[:, None] * strength[None]).clamp(0.1, 1)
    mean.fill_diagonal_(0.9)
    spread = torch.tensor([-0.02, 0.02])
    return HeatMap(subjects=tuple(chosen), confidence=mean, interval=mean[..., None] + spread,
                   whole=torch.full((len(chosen),), 0.93), examples=250, kept=102, features=1024)  # fmt: skip


def _classes(subjects: list[Subject], name: str, methods: tuple[str, ...]) -> ClassCounts:
    index = torch.arange(len(CLASSES))
    share = torch.tensor([one.removed for one in subjects])
    lost = (8 + 3 * index)[None] * share[:, None]
    won = (6 + index)[None] * share[:, None] ** 0.5
    right = 185 - 2 * index[None] - lost.long() + won.long()
    return ClassCounts(distribution=name, examples=torch.full((len(CLASSES),), 200), right=right,
                       lost=lost.long(), won=won.long())  # fmt: skip
