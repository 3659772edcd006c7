"""The recipes of papers/pruning-by-explaining run, at toy size."""

from __future__ import annotations

import doctest
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import shapleaf as sl

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "papers" / "pruning-by-explaining"
FOLDERS = (ROOT / "benchmarks", ROOT / "papers" / "shapley-pruning", STUDY)


def script(name: str) -> Any:
    """A fixture of that name: the module of the study."""

    @pytest.fixture(name=name)
    def load(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        for folder in FOLDERS:  # the scripts add them once, and a test takes back what was added in it
            monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module(name)

    return load


transformer, subjects, attributions, measuring, areas, questions = map(
    script, ("transformer", "subjects", "attributions", "measuring", "areas", "questions")
)
tuning = script("tuning")


@pytest.fixture
def toy(transformer: ModuleType, tmp_path: Path) -> Path:
    """A folder with a tiny transformer, untrained, as training leaves one."""
    from dataclasses import asdict

    from safetensors.torch import save_file

    sizes = transformer.Sizes(channels=3, image=32, classes=10, width=16, depth=2, heads=4, hidden=8)
    torch.manual_seed(0)
    folder = tmp_path / "toy"
    folder.mkdir()
    about = {"sizes": json.dumps(asdict(sizes)), "accuracy": "10.00%"}
    save_file(transformer.ViT(sizes).state_dict(), folder / "vit.safetensors", metadata=about)
    return folder


def test_examples_in_the_scripts(
    attributions: ModuleType, measuring: ModuleType, areas: ModuleType, questions: ModuleType
) -> None:
    for module in (attributions, measuring, areas, questions):
        found = doctest.testmod(module)
        assert found.attempted > 0, module
        assert found.failed == 0, module


@pytest.mark.parametrize("name", ["vgg16", "resnet56", "vit-neurons"])
def test_every_criterion_has_a_row(
    attributions: ModuleType, subjects: ModuleType, areas: ModuleType, name: str
) -> None:
    from shapleaf import criteria

    rows = attributions.attributions(subjects.CIFAR10[name])
    # IntegratedGradients is the line path, Occlusion by one unit leaves it out: rows that say so.
    twins = {criteria.IntegratedGradients, criteria.Occlusion}
    every = {one for n in criteria.__all__ if isinstance(one := getattr(criteria, n), type)}
    scored = {one for one in every if hasattr(one, "score") and one is not criteria.Criterion}
    assert {type(row.criterion) for row in rows} == scored - twins
    names = [row.name for row in rows]
    transformer = subjects.CIFAR10[name].transformer
    assert len(set(names)) == len(names) == 26 - transformer  # epsilon is a faithful composite there
    assert {*areas.DRAWN, *attributions.FAITHFUL[transformer]} <= {*names}
    assert [row.slow for row in rows] == sorted(row.slow for row in rows)
    absolute = {row.criterion.absolute for row in rows if isinstance(row.criterion, sl.LRP)}
    assert absolute == {None, "token" if transformer else "sample"}


def test_a_network_of_few_classes_has_targets_of_few_classes(attributions: ModuleType) -> None:
    lrp = attributions.restricted(sl.LRP(target=sl.Relative(sl.Logit())), (3, 5))
    assert lrp.target == sl.Relative(sl.Restricted((3, 5), sl.Logit()))
    assert attributions.restricted(sl.Shapley(), ()) == sl.Shapley()


def test_unknown_networks_and_missing_weights_are_named(subjects: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="'alexnet' is no network of this study; expected vgg16, "):
        subjects.load("alexnet", tmp_path)
    with pytest.raises(SystemExit, match="`python papers/pruning-by-explaining/transformer.py` makes"):
        subjects.load("vit-heads", tmp_path, cache=tmp_path)
    (tmp_path / "resnet50-a.pth").touch()
    (tmp_path / "resnet50.pt").touch()
    with pytest.raises(SystemExit, match=r"found resnet50-a.pth, resnet50.pt\."):
        subjects.load_imagenet("resnet50", tmp_path, tmp_path)
    with pytest.raises(
        SystemExit, match=r"expected one file resnet18\.\* or resnet18-\* in .*, found nothing"
    ):
        subjects.load_imagenet("resnet18", tmp_path, tmp_path)


@pytest.mark.data
def test_the_transformer_is_trained_once(transformer: ModuleType, shared: Path, tmp_path: Path) -> None:
    sizes = "--width 16 --depth 1 --heads 2 --hidden 8".split()
    command = [*sizes, *f"--out {tmp_path} --data cifar10:{shared}".split()]
    command += "--images 64 --epochs 1 --test-images 20".split()
    transformer.main(command)
    (written,) = tmp_path.iterdir()
    about, before = transformer.described(written), written.stat().st_mtime_ns
    assert about["data"] == "cifar10, 64 images, 1 epochs"
    assert float(about["accuracy"].rstrip("%")) % 5 == 0
    transformer.main(command)
    assert written.stat().st_mtime_ns == before

    model = transformer.trained(tmp_path)
    torch.manual_seed(0)
    assert not torch.equal(
        model.head.weight, transformer.ViT(transformer.Sizes(**json.loads(about["sizes"]))).head.weight
    )
    assert not model.training


@pytest.mark.data
def test_candidates_are_filters_neurons_or_heads(subjects: ModuleType, toy: Path, shared: Path) -> None:
    def sizes(name: str) -> list[int]:
        subject = subjects.load(name, shared, cache=toy)
        return [group.size for group in subject.trace().select(*subject.kind.groups)]

    assert sizes("vit-heads") == [4, 4]
    assert sizes("vit-neurons") == [8, 8]
    # All filters of VGG16, none of its dense units; the inner ones and the stream of ResNet-56.
    assert sum(sizes("vgg16")) == 4_224
    assert sum(sizes("resnet56")) == 9 * (16 + 32 + 64) + 16


@pytest.mark.parametrize("library", ["torchvision.models", "timm.models"])
def test_patterns_find_the_heads_and_neurons_of_other_libraries(subjects: ModuleType, library: str) -> None:
    vits = pytest.importorskip(f"{library}.vision_transformer")
    names = ("image_size", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim")
    sizes: dict[str, Any] = dict(zip(names, (32, 8, 2, 4, 16, 64), strict=True))
    if library == "timm.models":
        sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "num_heads": 4, "embed_dim": 16}
    graph = sl.trace(vits.VisionTransformer(**sizes, num_classes=3).eval(), torch.zeros(1, 3, 32, 32))
    for name, size in (("vit_b_16-heads", 4), ("vit_b_16-neurons", 64)):
        assert [group.size for group in graph.select(*subjects.IMAGENET[name].groups)] == [size, size]


@pytest.mark.data
def test_areas_are_measured_and_a_rerun_does_what_is_missing(
    areas: ModuleType, measuring: ModuleType, toy: Path, shared: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    command = "--networks vit-heads --references 1 --test-images 10 --seeds 0 1".split()
    command += f"--data {shared} --cache {toy} --out {tmp_path} --criteria".split()
    results, key = tmp_path / "areas-vit-heads.json", "weight norm | none | least | 0"

    areas.main([*command, "weight norm"])
    found = json.loads(results.read_text())
    # Nothing is drawn, so that it has one seed, and the control.
    assert set(found["cells"]) == {key, "weight norm | none | most | 0"}
    assert found["intact"]["vit-heads"]["units"] == 8
    cell = found["cells"][key]
    # One head of each block stays: of eight at most six go.
    assert cell["removed"] == [min(6, (8 * k) // 20) / 8 for k in range(20)]
    curve = measuring.unpacked(cell)
    assert curve.right.shape == (20, 10)
    assert cell["accuracy"] == [round(value, 2) for value in curve.accuracy.tolist()]

    cell["criterion"] = "weight norm"
    cell["attribution_cpu_seconds"] = 98.0
    found["cells"].pop("weight norm | none | most | 0")
    results.write_text(json.dumps(found))
    areas.main([*command, "weight norm", "PXP", "--compensate"])
    cells = json.loads(results.read_text())["cells"]
    assert cells[key]["attribution_cpu_seconds"] == 98.0
    pxp = [k.partition(" | ")[2] for k in cells if k.startswith("PXP")]
    folded = "means and statistics | least"
    # What makes up for what weight norms remove is drawn, though they are not.
    assert {f"weight norm | {folded} | 0", f"weight norm | {folded} | 1"} <= cells.keys()
    assert "weight norm | none | least | 1" not in cells
    assert pxp == [
        "none | least | 0",
        "none | most | 0",
        f"{folded} | 0",
        "none | least | 1",
        f"{folded} | 1",
    ]
    text = (tmp_path / "AREAS-vit-heads.md").read_text()
    assert "| weight norm | " in text
    assert "| optimal brain surgeon | - | - | - | - | - | - |" in text
    assert "PXP, epsilon everywhere" in (tmp_path / "areas-vit-heads.svg").read_text()

    with pytest.raises(SystemExit, match="was made with"):
        areas.main([*command, "weight norm", "--references", "2"])


def test_batch_norms_are_recalibrated_where_there_are_any(measuring: ModuleType) -> None:
    class Bare(measuring.Study):
        def __init__(self, model: nn.Module) -> None:
            self.subject = type("Subject", (), {"model": model})

        def reference(self, n: int, seed: int) -> Any:
            return torch.zeros(n, 3)

    def steps(model: nn.Module) -> list[type]:
        return [type(step) for step in Bare(model).compensations(2, 0)]

    assert steps(nn.Sequential(nn.Linear(3, 2))) == [sl.FoldMean]
    assert steps(nn.Sequential(nn.BatchNorm2d(2))) == [sl.FoldMean, sl.RecalibrateBatchNorm]


@pytest.mark.data
def test_questions_are_answered_from_what_was_measured(
    questions: ModuleType, measuring: ModuleType, toy: Path, shared: Path, tmp_path: Path
) -> None:
    folder = f"--data {shared} --cache {toy} --out {tmp_path}".split()
    questions.main([*folder, "--networks"])
    text = (tmp_path / "QUESTIONS.md").read_text()
    assert text.count("Not run.") == text.count("\n## ") == 5

    few = "--networks vit-heads --references 1 2 --most 2 --test-images 10 --seeds 0 1 --criteria".split()
    few.append("LRP epsilon")
    found = json.loads((tmp_path / "questions.json").read_text())
    assert not found["cells"]
    (tmp_path / "questions.json").unlink()
    questions.main([*folder, *few])
    cells = json.loads((tmp_path / "questions.json").read_text())["cells"]
    assert [cell["references"] for cell in cells.values()] == [1, 1, 2, 2]
    assert all(-1 <= cell["correlation"] <= 1 for cell in cells.values())
    with pytest.raises(SystemExit, match="'Taylor!' is no row of vit-heads; expected one of random, "):
        questions.main([*folder, *few[:-1], "Taylor!"])
    assert "of each class cannot be told from 2." in (tmp_path / "QUESTIONS.md").read_text()


def curve(name: str, rights: list[int], compensation: str = "none", seed: int = 0) -> sl.records.PruningCurve:
    """Of ten images, so many right at each rate."""
    right = torch.arange(10) < torch.tensor(rights)[:, None]
    rates = tuple(k / len(rights) for k in range(len(rights)))
    return sl.records.PruningCurve(
        criterion=name, compensation=compensation, seed=seed, right=right, rates=rates,
        removed=rates, params=rates, macs=rates,
    )  # fmt: skip


def test_claims_are_weighed_by_hand_made_curves(questions: ModuleType) -> None:
    epsilon, gamma = "LRP epsilon", "LRP epsilon + gamma"
    made = [curve(epsilon, [10, 10, 4]), curve(gamma, [10, 6, 2]), curve("LRP epsilon, signed", [10, 4, 1])]
    records = {"vgg16": sl.PruningCurves(curves=tuple(made))}
    # Areas of 24, 18 and 15 of 30; of 10 images the first two are always right, the last never at the end.
    assert "| vgg16 | LRP epsilon + gamma | no | 0.600 | 0.800 | **-0.200**" in questions.faithful(records)[0]
    assert "| vgg16 | LRP epsilon, signed | no | 0.500 | 0.800 | **-0.300**" in questions.signs(records)[0]
    assert (
        "| vgg16 | no | 0.800 | 1 of 3 | LRP epsilon + gamma, 0.600 | **+0.200**"
        in questions.default(records)[0]
    )
    assert "| vgg16 | - | - | 33 | LRP epsilon |" in questions.spare(records)[0]
    assert questions.difference([made[0]], [curve("b", [10, 1, 1], seed=1)]) is None


@pytest.mark.slow
def test_a_user_s_imagenet_restricted_to_some_classes(areas: ModuleType, tmp_path: Path) -> None:
    models, image = pytest.importorskip("torchvision.models"), pytest.importorskip("PIL.Image")
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    for split in ("train", "val"):
        for label in "abcd":
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for k in range(3):
                pixels = torch.randint(256, (40, 40, 3), dtype=torch.uint8, generator=draw).numpy()
                image.fromarray(pixels).save(folder / f"{k}.png")
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    weights.mkdir()
    save_file(models.resnet18(num_classes=4).state_dict(), weights / "resnet18-f37072fd.safetensors")

    command = f"--imagenet {tmp_path / 'images'} --weights {weights} --out {tmp_path}".split()
    command += "--networks resnet18 --classes 3 --image-size 32 --references 2 --seeds 0".split()
    areas.main([*command, "--criteria", "weight norm", "PXP", "--compensate"])
    found = json.loads((tmp_path / "areas-resnet18-3-classes.json").read_text())
    assert len(found["cells"]) == 6
    assert all(cell["examples"] == 9 for cell in found["cells"].values())
    assert (tmp_path / "areas-resnet18-3-classes.svg").exists()
    assert "--classes 3" in (tmp_path / "AREAS-resnet18-3-classes.md").read_text()


@pytest.mark.data
def test_rules_are_tuned_and_tested(
    tuning: ModuleType, toy: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ("--rates", 3, "--reference", 1, "--selection", 20, "--test", 30)
    places = ("--data", shared, "--cache", toy, "--out", tmp_path / "out")
    words = [str(word) for word in (*sizes, *places, "--networks", "vit-neurons", "--trials")]
    tuning.main([*words, "2"])
    found = json.loads((tmp_path / "out" / "tuning.json").read_text())["cells"]["vit-neurons"]
    assert found["trials"] == len(found["tried"]) == 2
    assert {*found["areas"]["tuned"]} == {"reference", "selection", "test"}
    assert found["choices"]["attention"] == "attnlrp"
    preset = sl.LRP.preset(tmp_path / "out" / "presets" / "vit-neurons.json")
    assert preset.absolute == "token"
    text = (tmp_path / "out" / "TUNING.md").read_text()
    assert "| vit-neurons | 2 |" in text
    assert text.splitlines()[2].endswith("tuning.py --rates 3 --reference 1 --selection 20 --test 30`")
    monkeypatch.setattr(tuning, "load", None)  # nothing is left to do
    tuning.main([*words, "2"])
    assert (tmp_path / "out" / "TUNING.md").read_text() == text
