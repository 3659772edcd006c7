"""Models by name, and their weights from files that may be damaged, foreign or hostile."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from shapleaf.errors import DataError, MissingExtraError
from shapleaf.integrations.models import load_model

SOURCE = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

class Holder:
    class Inner(nn.Module):
        pass

def net(classes=2):
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, classes))

def wide():
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))

def sized(width):
    return nn.Linear(width, width)

def late():
    import shapleaf_test_helper
    return shapleaf_test_helper.helped

ready = net()
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder with code in it, as a user's would be."""
    (tmp_path / "shapleaf_test_nets.py").write_text(SOURCE)
    (tmp_path / "shapleaf_test_helper.py").write_text("from torch import nn\nhelped = nn.Identity()\n")
    (tmp_path / "shapleaf_test_broken.py").write_text("import no_such_module\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shapleaf_test_")]:
        del sys.modules[name]


def net(**options) -> nn.Module:
    return load_model("shapleaf_test_nets:net", **options)


# where models come from


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_a_zoo_builds_by_name_and_classes(source):
    model = load_model(f"{source}:resnet18", num_classes=7)
    assert type(model).__name__ == "ResNet"
    assert model.fc.weight.shape == (7, 512)
    assert not model.training
    assert load_model(f"{source}:resnet18").fc.out_features == 1000


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_an_unknown_name_gets_near_ones(source):
    with pytest.raises(DataError, match=rf"{source} has no model 'resnet19'.*Did you mean resnet18 or "):
        load_model(f"{source}:resnet19")
    with pytest.raises(DataError, match=r"has no model 'zzzzzzzz'; it has \d+ others\.$"):
        load_model(f"{source}:zzzzzzzz")


def test_a_segmentation_model_downloads_no_backbone(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", None)
    assert (
        load_model(
            "torchvision:lraspp_mobilenet_v3_large", num_classes=5
        ).classifier.low_classifier.out_channels
        == 5
    )


@pytest.mark.parametrize(("source", "module"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_a_missing_zoo_names_the_extra(source, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=rf"{source} cannot be imported.*pip install 'shapleaf\[vision\]'"
    ):
        load_model(f"{source}:resnet18")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net", "Sequential"),
        ("ready", "Sequential"),
        ("Tied", "Tied"),
        ("Holder.Inner", "Inner"),
        ("late", "Identity"),
    ],
)
def test_a_factory_in_the_current_folder(name, kind, here):
    path = list(sys.path)
    model = load_model(f"shapleaf_test_nets:{name}")
    assert type(model).__name__ == kind
    assert not any(module.training for module in model.modules())
    assert sys.path == path


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "resnet18",
            {},
            "'resnet18' names nothing: expected 'package.module:NAME', or .* 'timm:NAME'",
        ),
        ("timm:", {}, "'timm:' names nothing"),
        (":net", {}, "':net' names nothing"),
        ("shapleaf_test_none:net", {}, "cannot import shapleaf_test_none: No module named"),
        (
            "shapleaf_test_broken:net",
            {},
            "cannot import shapleaf_test_broken: No module named 'no_such_module'",
        ),
        ("shapleaf_test_nets:nett", {}, r"shapleaf_test_nets has no 'nett'\. Did you mean net\?"),
        (
            "shapleaf_test_nets:number",
            {},
            "expected a torch.nn.Module or a function returning one, received a int",
        ),
        (
            "shapleaf_test_nets:sized",
            {},
            "sized cannot be called without arguments: missing a required argument: 'width'",
        ),
        ("shapleaf_test_nets:net", {"num_classes": 3}, "num_classes is for torchvision and timm"),
    ],
)
def test_specs_are_checked(spec, options, message, here):
    path = list(sys.path)
    with pytest.raises(DataError, match=message):
        load_model(spec, **options)
    assert sys.path == path


# weights


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s, "best": 0.5}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_load_however_they_were_wrapped(wrap, prefix, here):
    state = net().state_dict()
    torch.save(wrap({prefix + name: tensor for name, tensor in state.items()}), "w.pt")
    loaded = net(weights="w.pt").state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_safetensors_load_in_the_models_own_precision(here):
    state = net().state_dict()
    save_file(
        {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        "w.safetensors",
    )
    loaded = net(weights="w.safetensors").state_dict()
    assert all(torch.equal(loaded[n], state[n].half().float()) for n in state if state[n].is_floating_point())
    assert loaded["0.weight"].dtype == torch.float32


def test_tied_weights_need_to_be_in_the_file_once(here):
    tied = load_model("shapleaf_test_nets:Tied")
    save_model(tied, "w.safetensors")
    loaded = load_model("shapleaf_test_nets:Tied", weights="w.safetensors")
    assert torch.equal(loaded.b.weight, tied.a.weight)


def test_weights_that_do_not_fit_show_the_first_differences(here):
    wide = load_model("shapleaf_test_nets:wide").state_dict()
    torch.save({name: wide[name] for name in list(wide)[:3]}, "few.pt")
    with pytest.raises(
        DataError, match=r"few.pt does not fit the model: it lacks 1.bias, 2.weight, 2.bias and 2 more\.$"
    ):
        load_model("shapleaf_test_nets:wide", weights="few.pt")
    torch.save(wide | {"head.weight": torch.zeros(1)}, "more.pt")
    with pytest.raises(DataError, match=r"does not fit the model: it also has head.weight\.$"):
        load_model("shapleaf_test_nets:wide", weights="more.pt")
    torch.save(wide | {"0.weight": torch.zeros(3, 5)}, "shape.pt")
    with pytest.raises(DataError, match=r"0.weight is \(3, 5\), expected \(2, 2\)\.$"):
        load_model("shapleaf_test_nets:wide", weights="shape.pt")


def test_another_number_of_classes_is_recognised(here):
    state = net().state_dict()
    torch.save(state | {"2.weight": torch.zeros(5, 3), "2.bias": torch.zeros(5)}, "w.pt")
    with pytest.raises(
        DataError,
        match=r"2.bias is \(5,\), expected \(2,\)\. If these are .* with num_classes=5\.",
    ):
        net(weights="w.pt")


class Hostile:
    def __reduce__(self):
        return open, ("pwned", "w")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"0.weight": Hostile()}, path),
        lambda path: path.write_bytes(pickle.dumps(Hostile())),
        lambda path: path.write_bytes(pickle.dumps({"state_dict": Hostile()})),
        lambda path: torch.save(nn.Linear(2, 2), path),
    ],
    ids=["in an archive", "a bare pickle", "a nested pickle", "a whole module"],
)
def test_a_pickle_of_anything_but_tensors_is_refused_and_not_run(write, here):
    write(here / "w.pt")
    with pytest.raises(
        DataError, match=r"w.pt was refused.*unpickling anything else can run code.*safetensors"
    ):
        net(weights="w.pt")
    assert not (here / "pwned").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    "data", [b"", b"neither one nor the other", b"PK\x03\x04" + bytes(60), bytes([255] * 40)]
)
def test_damaged_files_are_refused(name, data, here):
    (here / name).write_bytes(data)
    with pytest.raises(DataError, match=f"{name} (is not a|was refused)"):
        net(weights=name)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_truncated_files_are_refused(name, here):
    state = net().state_dict()
    (save_file if name.endswith("safetensors") else torch.save)(state, name)
    data = (here / name).read_bytes()
    (here / name).write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(DataError, match=f"{name} is not a .*, or is damaged"):
        net(weights=name)


@pytest.mark.parametrize("value", [[torch.zeros(2)], {}, {"epoch": 3}, {0: torch.zeros(2)}, torch.zeros(2)])
def test_files_without_a_state_dict_are_refused(value, here):
    torch.save(value, "w.pt")
    with pytest.raises(DataError, match="holds no state dict"):
        net(weights="w.pt")


def test_missing_weights_are_named(here):
    with pytest.raises(DataError, match="the weights nowhere.pt do not exist"):
        net(weights="nowhere.pt")
    with pytest.raises(DataError, match="the weights .* do not exist"):
        net(weights=here)


@pytest.mark.data
def test_the_real_weights_do_not_fit_another_model(shared):
    with pytest.raises(DataError, match=r"resnet20.safetensors does not fit the model"):
        load_model("torchvision:resnet18", weights=shared / "cifar10-resnet20.safetensors")
