"""What the command line takes, and how its words become the library's objects.

Nothing heavy is imported before a command runs, so that help and completion are instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import BudgetError, CriterionError, DataError

if TYPE_CHECKING:
    from torch import nn

    from .budgets import Budget
    from .criteria import Criterion
    from .integrations.datasets import Images
    from .records import Receipt
    from .strategies import Strategy

_DATA = "Data"
_SAMPLING = "Sampling"


def _option(text: str, *names: str, panel: str | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


Model = Annotated[str, typer.Argument(help="torchvision:NAME, timm:NAME or package.module:factory.")]
Weights = Annotated[Path | None, _option("A safetensors file or a torch state dict.")]
Classes = Annotated[int | None, _option("Classes of a model from a zoo.", "--num-classes")]
Data = Annotated[
    str, _option("digits, mnist:DIR, cifar10:DIR, imagefolder:DIR or parquet:FILE.", panel=_DATA)
]
MaybeData = Annotated[str | None, _option("Compensate by this data, as much as --effort says.", panel=_DATA)]
Split = Annotated[str, _option("train or test.", panel=_DATA)]
Size = Annotated[int | None, _option("Resize images to this height and width.", "--image-size", panel=_DATA)]
Normalise = Annotated[
    str | None, _option("Mean/std of the inputs, such as 0.5/0.2 or 0.4,0.5,0.6/0.2,0.2,0.3.", panel=_DATA)
]
Batch = Annotated[int, _option("Examples per batch.", "--batch-size", panel=_DATA)]
Calibration = Annotated[int, _option("Labelled examples to calibrate on.", panel=_DATA)]
Test = Annotated[int | None, _option("Test on at most so many of the other examples.", panel=_DATA)]
Seed = Annotated[int, _option("Names every random draw.")]
CriterionName = Annotated[
    str,
    _option("shapley, taylor, lrp, lrp:PRESET_OR_FILE … or package.module:Class.", "--criterion"),
]
Confidence = Annotated[
    float | None, _option("Draw until so much of the ranking is settled, such as 0.95.", panel=_SAMPLING)
]
Evaluations = Annotated[int | None, _option("Never more for a group than so many.", panel=_SAMPLING)]
Seconds = Annotated[float | None, _option("Begin no draw beyond, for each group.", panel=_SAMPLING)]
Journal = Annotated[
    Path | None, _option("Folder to go on from, if the run is interrupted or killed.", panel=_SAMPLING)
]
Memory = Annotated[str | None, _option("For activations, such as 512MiB or 4GiB.", panel=_SAMPLING)]
Bf16 = Annotated[bool, _option("Run the network in bfloat16 (autocast).", "--bf16", panel=_SAMPLING)]
What = Annotated[str, _option("macs, params, units or latency.", "--budget")]
Table = Annotated[Path | None, _option("What profile wrote, for a latency budget.", "--table")]
Keep = Annotated[str | None, _option("How much may stay: 0.5, 50% or a whole number.")]
Remove = Annotated[str | None, _option("How much must go: 0.5, 50% or a whole number.")]
EffortName = Annotated[
    str, _option("fast (refit), balanced (and distil), or best (distil for longer).", "--effort")
]
StrategyName = Annotated[str, _option("tradeoff, uniform, global or error-level.", "--strategy")]
Out = Annotated[Path, _option("Where to write.", "--out", "-o")]
Json = Annotated[bool, _option("Print the result as JSON.", "--json")]
Quiet = Annotated[bool, _option("No progress bars and no tables.", "--quiet", "-q")]

_SHIFTS = "Shifts"
Pruned = Annotated[
    list[str],
    typer.Argument(help="Folders that prune, slim or a cycle wrote; METHOD=FOLDER names the curve."),
]
Separate = Annotated[
    Path | None, _option("Weights of an independently trained network, as a yardstick.", panel=_DATA)
]
Corruptions = Annotated[
    list[str] | None,
    _option("One of the 19, or none; repeatable. By default all that fit.", "--corruption", panel=_SHIFTS),
]
Severities = Annotated[
    list[int] | None, _option("1 to 5; repeatable. 3 by default.", "--severity", panel=_SHIFTS)
]
Noise = Annotated[
    list[float] | None, _option("Std of Gaussian noise, pixels 0 to 1; repeatable.", panel=_SHIFTS)
]
Draws = Annotated[int, _option("Of noise, to compare what the models do; 0 leaves it out.")]
Features = Annotated[int, _option("Images to find out what the models look at; 0 leaves it out.")]
Delta = Annotated[float, _option("How much the error may rise: 0.005 is half a point.")]
Plots = Annotated[bool, _option("Also write the figures as SVG.", "--plots")]
StudyFile = Annotated[Path, typer.Argument(help="A TOML or JSON file that describes the study.")]
CriteriaNames = Annotated[
    list[str] | None,
    _option("A criterion, or NAME=CRITERION; repeatable. By default seven of all kinds.", "--criterion"),
]
GroupPatterns = Annotated[list[str] | None, _option("Shell pattern of groups; repeatable.", "--groups")]
Samples = Annotated[
    list[int] | None,
    _option(
        "Examples whose scores are compared with all's; repeatable; 0 leaves it out. By default 10 and 30, "
        "where --calibration is more."
    ),
]
Rates = Annotated[
    int, _option("How many rates the curves have, even from 0: 20 go to 95 %, 4 to 75 %; 0 leaves them out.")
]
Refit = Annotated[bool, _option("Measure the curves also with surviving weights refitted.", "--refit")]
Workers = Annotated[int, _option("Processes on this machine.")]
PerClass = Annotated[int, _option("Examples of each class to attribute.", "--per-class", panel=_DATA)]
Selection = Annotated[int, _option("Other examples to choose by.", panel=_DATA)]
Trials = Annotated[int, _option("How many presets to try.")]
Bands = Annotated[str, _option("Depths at which bands end, or vgg, resnet18, resnet50, vit.")]
Folder = Annotated[Path | None, _option("To go on from, if interrupted, and to share among processes.")]
Patience = Annotated[float, _option("Seconds until a silent worker elsewhere is taken for dead.")]


def network(spec: str, weights: Path | None, num_classes: int | None) -> nn.Module:
    """The model that the options name."""
    from .integrations.models import load_model

    return load_model(spec, weights=weights, num_classes=num_classes)


def rebuilt(fresh: nn.Module, receipt: Receipt, folder: Path) -> nn.Module:
    """What prune wrote into a folder: a model of the original architecture, pruned in place, its weights."""
    from .integrations.models import load_weights
    from .surgery import replay

    load_weights(replay(fresh, receipt), folder / "weights.safetensors")
    return fresh


def divide(images: Images, calibration: int, seed: int, test: int | None) -> tuple[Images, Images]:
    """The examples to calibrate on, and those of the others to test on."""
    sample = images.sample(calibration, seed)
    rest = images.without(sample.ids)
    return sample, rest if test is None or test >= len(rest) else rest.sample(test, seed)


def tuning_parts(
    images: Images, per_class: int, selection: int, seed: int, test: int | None
) -> tuple[Images, Images, Images]:
    """The examples to attribute, so many of each class; of the others, those to choose by and to test on."""
    import torch

    from .data import per_class as drawn

    chosen = drawn((images.ids, images.labels), per_class, seed=seed)
    rest = images.without(torch.cat([batch.inputs for batch in chosen]))
    return (images.without(rest.ids), *divide(rest, selection, seed, test))


def rates(count: int) -> list[float]:
    """So many shares of the units, evenly from 0 to below 1."""
    if count < 0:
        raise CriterionError(f"--rates {count}: expected how many, or 0 for no curves.")
    return [k / count for k in range(count)]


def samples(counts: Sequence[int] | None, calibration: int) -> list[int]:
    """Numbers of examples to compare with all that there are; 0 is none."""
    return [k for k in (10, 30) if k < calibration] if counts is None else [k for k in counts if k]


def depths(text: str) -> str | tuple[float, ...]:
    """``0.3,0.7`` as numbers; the name of a network as it is."""
    if text[:1].isalpha():
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise CriterionError(f"--bands {text!r}: expected depths, such as 0.3,0.7.") from None


def images(spec: str, split: str, size: int | None, normalise: str | None) -> Images:
    """The data set that the options name."""
    from .integrations.datasets import load_data

    if split not in ("train", "test"):
        raise DataError(f"--split {split!r}: expected train or test.")
    mean, std = _statistics(normalise) if normalise else (None, None)
    return load_data(spec, split=split, image_size=size, mean=mean, std=std)  # type: ignore[arg-type]


def _statistics(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = (tuple(float(part) for part in half.split(",")) for half in text.split("/"))
    except ValueError:
        raise DataError(
            f"--normalise {text!r}: expected mean/std, such as 0.4,0.5,0.6/0.2,0.2,0.3."
        ) from None
    return mean, std


def criterion(name: str) -> Criterion:
    """The criterion of that name, or an instance of the user's own class ``package.module:Class``."""
    import shapleaf as sl

    known: dict[str, Criterion] = {
        "shapley": sl.Shapley(),
        "shapley-permutation": sl.Shapley(sl.Permutation()),
        "shapley-paper": sl.Shapley(sl.Permutation(samples=5, antithetic=False, shared=True)),
        "leave-one-out": sl.LeaveOneOut(),
        "taylor": sl.Taylor(),
        "taylor-signed": sl.Taylor(signed=True),
        "sensitivity": sl.Sensitivity(),
        "saliency": sl.Saliency(target=sl.Logit()),
        "gradient-activation": sl.GradientActivation(signed=True, target=sl.Logit()),
        "integrated-gradients": sl.IntegratedGradients(),
        "occlusion": sl.Occlusion(),
        "deeplift": sl.DeepLIFT(),
        "conductance": sl.Conductance(),
        "apoz": sl.APoZ(),
        "weight-norm": sl.WeightNorm(),
        "pfp": sl.PFP(),
        "thinet": sl.ThiNet(),
        "optimal-brain-surgeon": sl.OptimalBrainSurgeon(felt=True),
        "random": sl.Random(),
        "lrp": sl.LRP(),
    }
    if name in known:
        return known[name]
    kind, _, rest = name.partition(":")
    if kind == "lrp":
        preset: Criterion = sl.LRP.preset(rest)
        return preset
    if not rest:
        options = ", ".join(known)
        raise CriterionError(
            f"no criterion is named {name!r}; there are {options}, lrp:PRESET_OR_FILE, and "
            "package.module:Class."
        )
    from .integrations.models import imported

    found = imported(name)
    try:
        made: object = found() if isinstance(found, type) else found
    except TypeError as error:
        raise CriterionError(f"{name} cannot be made without arguments: {error}.") from error
    from .criteria import Criterion

    if not isinstance(made, Criterion):
        raise CriterionError(f"{name} is no criterion: it lacks the attribute needs or the method score.")
    return made


_COMPARED = "random weight-norm apoz sensitivity taylor optimal-brain-surgeon shapley"


def criteria(words: Sequence[str] | None) -> dict[str, Criterion]:
    """Several criteria by name: each as :func:`criterion` knows it, or as ``NAME=CRITERION``."""
    found: dict[str, Criterion] = {}
    for word in words or _COMPARED.split():
        name, _, spec = word.rpartition("=")
        if (name or spec) in found:
            raise CriterionError(
                f"--criterion {word}: there is one named {name or spec} already; use NAME={spec}."
            )
        found[name or spec] = criterion(spec)
    return found


def sampling(
    chosen: Criterion,
    confidence: float | None,
    evaluations: int | None,
    seconds: float | None,
    journal: Path | None,
    memory: str | None,
) -> Criterion:
    """The criterion with adaptive sampling if any limit or a journal was given, and with its memory."""
    import shapleaf as sl

    given = {"confidence": confidence, "evaluations": evaluations, "seconds": seconds}
    given = {name: value for name, value in given.items() if value is not None}
    if given or journal:
        if not isinstance(chosen, sl.Shapley):
            names = ", ".join(f"--{name}" for name in (*given, *(["journal"] if journal else [])))
            raise CriterionError(f"{names} need a criterion that draws, such as --criterion shapley.")
        limits: dict[str, Any] = given if confidence else {"confidence": 1.0, **given}
        sampler: Any = chosen.estimator
        adaptive = sl.Adaptive(sampler, journal=str(journal) if journal else None, **limits)
        chosen = replace(chosen, estimator=adaptive)
    if memory:
        if not hasattr(chosen, "memory"):
            raise CriterionError(
                "--memory bounds criteria that take units away, such as shapley or leave-one-out."
            )
        chosen = replace(chosen, memory=_bytes(memory))  # type: ignore[type-var]
    return chosen


def _bytes(text: str) -> int:
    number, unit = text.rstrip("KMGiB"), text[len(text.rstrip("KMGiB")) :]
    powers = {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}
    if not number.isdecimal() or unit not in powers:
        raise CriterionError(f"--memory {text!r}: expected bytes, or a number with KiB, MiB or GiB.")
    return int(number) << powers[unit]


def strategy(name: str) -> Strategy:
    """``tradeoff``, ``uniform``, ``global`` or ``error-level``."""
    import shapleaf as sl

    known: dict[str, Strategy] = {
        "tradeoff": sl.Tradeoff(),
        "uniform": sl.Uniform(),
        "global": sl.Global(),
        "error-level": sl.ErrorLevel(),
    }
    if name not in known:
        raise BudgetError(f"--strategy {name!r}: expected {', '.join(known)}.")
    return known[name]


def budget(what: str, keep: str | None, remove: str | None, table: Path | None = None) -> Budget:
    """The budget that ``--budget``, ``--keep``, ``--remove`` and ``--table`` describe."""
    import shapleaf as sl

    known: dict[str, type[Budget]] = {"macs": sl.Macs, "params": sl.Params, "units": sl.Units}
    if what not in (*known, "latency"):
        raise BudgetError(f"--budget {what!r}: expected {', '.join(known)} or latency.")
    if (keep is None) == (remove is None):
        raise BudgetError("give exactly one of --keep and --remove, such as --keep 0.5.")
    if (what == "latency") != (table is not None):
        raise BudgetError(
            "--budget latency and --table, which names what shapleaf profile wrote, go together."
        )
    if table is not None:
        limit: Budget = sl.Latency(
            keep=_amount(keep), remove=_amount(remove), table=sl.LatencyTable.load(table)
        )
        return limit
    return known[what](keep=_amount(keep), remove=_amount(remove))


def _amount(text: str | None) -> float | int | None:
    if text is None:
        return None
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise BudgetError(f"{text!r} is no amount: expected 0.5, 50% or a whole number.") from None


def shape(text: str) -> tuple[int, ...]:
    """``3,224,224`` as numbers."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"--shape {text!r}: expected numbers, such as 3,224,224.") from None
