"""Published test sets, from small files of their layout."""

import numpy as np
import pytest
import torch
from PIL import Image

from shapleaf.data import batches
from shapleaf.errors import DataError
from shapleaf.integrations.published import load_shifted

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def write_cifar10c(folder, names=("fog", "contrast"), size=6):
    """Image i of severity s is gray of level 10 s + i; contrast is 100 brighter."""
    folder.mkdir(exist_ok=True)
    levels = np.add.outer(10 * np.arange(1, 6), np.arange(size)).reshape(-1).astype(np.uint8)
    for name in names:
        values = levels + np.uint8(100 if name == "contrast" else 0)
        np.save(folder / f"{name}.npy", np.broadcast_to(values[:, None, None, None], (5 * size, 32, 32, 3)))
    np.save(folder / "labels.npy", np.tile(np.arange(size) % 10, 5).astype(np.uint8))


def levels_of(distribution):
    inputs = torch.cat([batch.inputs for batch in batches(distribution.data)])
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    return ((inputs * std + mean) * 255)[:, 1, 5, 7].round().tolist()


def labels_of(distribution):
    return torch.cat([batch.target for batch in batches(distribution.data)]).tolist()


def test_o23_severities_are_stacked(tmp_path):
    write_cifar10c(tmp_path)
    found = load_shifted(f"cifar10c:{tmp_path}", names=["fog", "contrast"], severities=(1, 4))
    assert [(one.name, one.family, one.nominal) for one in found] == [
        ("fog 1", "weather", False),
        ("fog 4", "weather", False),
        ("contrast 1", "digital", False),
        ("contrast 4", "digital", False),
    ]
    assert levels_of(found[0]) == [10, 11, 12, 13, 14, 15]
    assert levels_of(found[1]) == [40, 41, 42, 43, 44, 45]
    assert levels_of(found[3]) == [140, 141, 142, 143, 144, 145]
    assert labels_of(found[2]) == [0, 1, 2, 3, 4, 5]
    assert levels_of(found[1]) == levels_of(found[1])


def test_some_images_are_taken_by_their_place(tmp_path):
    write_cifar10c(tmp_path)
    found = load_shifted(f"cifar10c:{tmp_path}", names=["fog"], ids=torch.tensor([4, 0]), batch_size=1)[0]
    assert levels_of(found) == [34, 30]
    assert labels_of(found) == [4, 0]
    assert [batch.examples for batch in batches(found.data)] == [1, 1]
    for ids in (torch.tensor([6]), torch.tensor([-1]), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(DataError, match="ids must be places from 0 to 5 in cifar10c:.* fog 3"):
            load_shifted(f"cifar10c:{tmp_path}", names=["fog"], ids=ids)


def test_images_are_normalised_as_asked(tmp_path):
    write_cifar10c(tmp_path)
    found = load_shifted(f"cifar10c:{tmp_path}", names=["fog"], mean=[0.0] * 3, std=[1.0] * 3)[0]
    assert float(next(batches(found.data)).inputs[2].mean()) == pytest.approx(32 / 255)
    with pytest.raises(DataError, match="std must be 3 finite numbers"):
        load_shifted(f"cifar10c:{tmp_path}", names=["fog"], mean=[0.0] * 3, std=[1.0])


def test_missing_corruptions_are_named_with_those_there(tmp_path):
    write_cifar10c(tmp_path)
    with pytest.raises(
        DataError, match=r"lacks gaussian_noise, .*; it has contrast, fog. Pass names= .*zenodo"
    ):
        load_shifted(f"cifar10c:{tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="lacks snow; it has no corruption"):
        load_shifted(f"cifar10c:{tmp_path}/empty", names=["snow"])
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels.npy does not exist; expected DIR/<corruption>.npy"):
        load_shifted(f"cifar10c:{tmp_path}", names=["fog"])


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        (
            "fog.npy",
            np.array([Hostile()], dtype=object),
            "fog.npy cannot be read as an array: .*Python objects",
        ),
        (
            "fog.npy",
            np.zeros((30, 32, 32), np.uint8),
            r"uint8 of shape \(30, 32, 32\), expected .*\(30, 32, 32, 3\)",
        ),
        ("fog.npy", np.zeros((25, 32, 32, 3), np.uint8), r"shape \(25, 32, 32, 3\), expected"),
        ("fog.npy", np.zeros((30, 32, 32, 3), np.float32), "holds float32"),
        ("labels.npy", np.zeros((30, 1), np.uint8), r"labels.npy holds uint8 of shape \(30, 1\)"),
        ("labels.npy", np.full(30, 10), "expected an integer from 0 to 9"),
        ("labels.npy", np.zeros(0, np.uint8), "expected an integer from 0 to 9"),
        ("labels.npy", np.zeros(30), "holds float64"),
        ("labels.npy", np.zeros(29, np.uint8), "29 labels, which are not 5 severities"),
    ],
)
def test_arrays_that_do_not_fit(file, array, message, tmp_path):
    write_cifar10c(tmp_path)
    np.save(tmp_path / file, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        load_shifted(f"cifar10c:{tmp_path}", names=["fog"])


@pytest.mark.parametrize("data", [b"", b"no array", None])
def test_damaged_files(data, tmp_path):
    write_cifar10c(tmp_path)
    path = tmp_path / "fog.npy"
    path.write_bytes(path.read_bytes()[:5000] if data is None else data)
    with pytest.raises(DataError, match="fog.npy cannot be read as an array"):
        load_shifted(f"cifar10c:{tmp_path}", names=["fog"])


def test_archives_of_arrays_are_refused(tmp_path):
    write_cifar10c(tmp_path)
    with (tmp_path / "fog.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(DataError, match="holds several arrays"):
        load_shifted(f"cifar10c:{tmp_path}", names=["fog"])


def test_cifar101(tmp_path):
    np.save(tmp_path / "cifar10.1_v6_data.npy", np.full((4, 32, 32, 3), 77, np.uint8))
    with pytest.raises(
        DataError, match="cifar10.1_v6_labels.npy does not exist; expected DIR/cifar10.1_v6_data"
    ):
        load_shifted(f"cifar10.1:{tmp_path}")
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.array([3, 1, 4, 1], np.int32))
    (found,) = load_shifted(f"cifar10.1:{tmp_path}")
    assert (found.name, found.nominal) == ("CIFAR-10.1", False)
    assert (levels_of(found), labels_of(found)) == ([77] * 4, [3, 1, 4, 1])


def test_imagenetc(tmp_path):
    for severity in (1, 2):
        for label, name in enumerate(("n01", "n02")):
            folder = tmp_path / "fog" / str(severity) / name
            folder.mkdir(parents=True)
            pixels = np.full((224, 224, 3), 50 * severity + label, np.uint8)
            Image.fromarray(pixels).save(folder / "ILSVRC2012_val_1.png")
    found = load_shifted(f"imagenetc:{tmp_path}", names=["fog"], severities=(1, 2), mean=MEAN, std=STD)
    assert [one.name for one in found] == ["fog 1", "fog 2"]
    assert [(levels_of(one), labels_of(one)) for one in found] == [([50, 51], [0, 1]), ([100, 101], [0, 1])]
    assert next(batches(found[0].data)).inputs.shape == (2, 3, 224, 224)
    with pytest.raises(
        DataError, match=r"fog/3 does not exist; expected DIR/<corruption>/<severity>/<class>"
    ):
        load_shifted(f"imagenetc:{tmp_path}", names=["fog"])
    with pytest.raises(DataError, match="lacks snow; it has fog"):
        load_shifted(f"imagenetc:{tmp_path}", names=["snow"])


def test_published_images_are_not_resized(tmp_path):
    folder = tmp_path / "fog" / "3" / "n01"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    found = load_shifted(f"imagenetc:{tmp_path}", names=["fog"], mean=[0.0] * 3, std=[1.0] * 3)[0]
    inputs = next(batches(found.data)).inputs[0]
    assert torch.equal((inputs * 255).round().byte().permute(1, 2, 0), torch.from_numpy(pixels))


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "cifar10c",
            {},
            "'cifar10c' is no shifted data: expected cifar10c:DIR, cifar10.1:DIR, imagenetc:DIR",
        ),
        ("cifar100c:here", {}, "is no shifted data"),
        ("cifar10c:/nowhere", {}, "the folder /nowhere does not exist; expected DIR/<corruption>.npy"),
        ("cifar10c:.", {"names": ["mist"]}, "no corruption is named 'mist'"),
        ("cifar10c:.", {"severities": (0,)}, r"severities must be 1 to 5, received \(0,\)"),
    ],
)
def test_what_cannot_be_loaded(spec, options, message):
    with pytest.raises(DataError, match=message):
        load_shifted(spec, **options)
