"""Images by name, from files made here and from the real ones."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from shapleaf.data import batches, take
from shapleaf.errors import DataError, MissingExtraError
from shapleaf.integrations.datasets import load_data

PLAIN = {"mean": [0.0], "std": [1.0]}
PLAIN3 = {"mean": [0.0] * 3, "std": [1.0] * 3}


def png(pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, "png")
    return out.getvalue()


def flat(value: int, height: int = 4, width: int = 4) -> bytes:
    return png(np.full((height, width, 3), value))


def idx(array) -> bytes:
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


def write_mnist(folder, prefix="train", *, compress=False, images=None, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2) if images is None else images
    for kind, array in (("images-idx3", images), ("labels-idx1", [5, 0, 4] if labels is None else labels)):
        data = idx(array)
        name = f"{prefix}-{kind}-ubyte"
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(data) if compress else data)


def write_parquet(path, *, images=None, labels=(1, 0), image="img", label="label", names=None, packed=True):
    images = [flat(0), flat(255)] if images is None else images
    cells = [{"bytes": data, "path": None} for data in images] if packed else images
    table = pa.table({image: cells, label: list(labels)})
    if names is not None:
        features = {"info": {"features": {label: {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path)


def write_folder(root, classes, count=2):
    for value, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index}.png").write_bytes(flat(100 * value + index, 8, 6))


# what all sources share


def test_digits_are_normalised_and_balanced():
    train, test = load_data("digits"), load_data("digits", split="test")
    images, labels = train.tensors()
    assert images.shape == (4000, 1, 16, 16)
    assert images.dtype == torch.float32
    assert labels.bincount().tolist() == [400] * 10
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02
    assert len(test) == 1000
    assert test.classes == tuple("0123456789")
    assert not torch.equal(images[0], test[0][0])
    assert str(train) == "Images(digits train: 4000 images of 1 x 16 x 16, 10 classes)"


def test_an_image_is_its_normalised_pixels():
    data = load_data("digits", split="test", mean=[0.5], std=[0.25])
    image, label = data[3]
    assert torch.equal(image, (data.pixels[3].float() / 255 - 0.5) / 0.25)
    assert label == int(data.labels[3])


def test_batches_can_be_gone_through_again_and_leave_torch_alone():
    data = load_data("digits", split="test")
    loader = data.batches(300)
    before = torch.get_rng_state()
    first, second = list(batches(loader)), list(batches(loader))
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch.examples for batch in first] == [300, 300, 300, 100]
    assert torch.equal(torch.cat([batch.target for batch in second]), data.labels)
    assert torch.equal(torch.cat([batch.inputs for batch in first]), data.tensors()[0])


def test_a_sample_is_random_and_the_rest_is_without_it():
    data = load_data("digits", split="test")
    sample = data.sample(50, seed=3)
    assert sample.ids.unique().numel() == 50
    assert torch.equal(sample.ids, data.sample(50, seed=3).ids)
    assert not torch.equal(sample.ids, data.sample(50, seed=4).ids)
    image, label = sample[7]
    assert torch.equal(image, data[int(sample.ids[7])][0])
    assert label == int(data.labels[sample.ids[7]])
    rest = data.without(sample.ids)
    assert len(rest) == 950
    assert not set(rest.ids.tolist()) & set(sample.ids.tolist())
    assert rest.without(data.ids).ids.tolist() == []
    assert rest.sample(5, seed=0).without(sample.ids).ids.numel() == 5


@pytest.mark.parametrize("n", [0, 1001])
def test_a_sample_cannot_be_larger_than_the_data(n):
    with pytest.raises(DataError, match=f"a sample of {n} was asked for, but digits test has 1000 images"):
        load_data("digits", split="test").sample(n, seed=0)


def test_take_draws_from_images():
    data = load_data("digits", split="test")
    calibration = take(data, 30, seed=1, batch_size=20)
    assert [batch.inputs.shape for batch in calibration] == [(20, 1, 16, 16), (10, 1, 16, 16)]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("digitz", {}, "'digitz' is no data: expected digits, mnist:DIR, .*, parquet:FILE"),
        ("digits:here", {}, "'digits:here' is no data"),
        ("mnist", {}, "'mnist' is no data: expected digits, mnist:DIR"),
        ("digits", {"split": "val"}, "split must be 'train' or 'test', received 'val'"),
        ("digits", {"image_size": 0}, "image_size must be at least 1, received 0"),
        ("digits", {"mean": [0.1, 0.2, 0.3]}, "mean must be 1 finite numbers"),
        ("digits", {"std": [0.0]}, r"std above 0; received \(0.0,\)"),
        ("digits", {"mean": [float("nan")]}, "mean must be 1 finite"),
    ],
)
def test_specs_and_options_are_checked(spec, options, message):
    with pytest.raises(DataError, match=message):
        load_data(spec, **options)


@pytest.mark.parametrize("source", ["mnist", "cifar10", "imagefolder"])
def test_a_missing_folder_is_named(source, tmp_path):
    with pytest.raises(DataError, match="the folder .*nowhere does not exist"):
        load_data(f"{source}:{tmp_path}/nowhere")


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingExtraError, match=r"pyarrow cannot be imported.*pip install 'shapleaf\[images\]'"
    ):
        load_data(f"parquet:{tmp_path}/a.parquet")


# MNIST


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("compress", [False, True])
def test_mnist_reads_idx_files(place, compress, tmp_path):
    write_mnist(tmp_path / place, compress=compress)
    write_mnist(tmp_path / place, "t10k", compress=compress, images=np.full((1, 2, 2), 255), labels=[9])
    data = load_data(f"mnist:{tmp_path}", **PLAIN)
    assert data.labels.tolist() == [5, 0, 4]
    assert data.shape == (1, 2, 2)
    assert torch.equal(data[1][0] * 255, torch.tensor([[[4.0, 5.0], [6.0, 7.0]]]))
    image, label = load_data(f"mnist:{tmp_path}", split="test")[0]
    assert label == 9
    assert image[0, 0, 0] == pytest.approx((1 - 0.1307) / 0.3081)


def test_mnist_says_what_it_looked_for(tmp_path):
    with pytest.raises(
        DataError, match="none of the files.*train-images-idx3-ubyte, .*MNIST/raw/train.*ubyte.gz"
    ):
        load_data(f"mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(np.zeros((3, 2, 2)))[:-1], "truncated or damaged: its header says 12 bytes of data, it has 11"),
        (idx(np.zeros((3, 2, 2))) + b"x", "its header says 12 bytes of data, it has 13"),
        (b"\x00\x00\x0d\x01" + bytes(8), "is not an idx file of bytes"),
        (b"\x00\x00\x08\x03" + bytes(5), "is not an idx file of bytes"),
        (b"", "is not an idx file of bytes"),
        (b"\x00\x00\x08\x01\xff\xff\xff\xff", "truncated or damaged"),
        (idx(np.zeros((2, 2, 2))), r"are not MNIST: images of shape \(2, 2, 2\), labels of shape \(3,\)"),
        (idx(np.zeros(3)), r"are not MNIST: images of shape \(3,\)"),
    ],
)
def test_damaged_idx_files_are_refused(data, message, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=message):
        load_data(f"mnist:{tmp_path}")


@pytest.mark.parametrize("damage", [lambda data: data[:20], lambda data: b"no gzip" + data])
def test_damaged_gzip_files_are_refused(damage, tmp_path):
    write_mnist(tmp_path, compress=True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="cannot read .*labels-idx1-ubyte.gz"):
        load_data(f"mnist:{tmp_path}")


def test_mnist_has_ten_classes(tmp_path):
    write_mnist(tmp_path, labels=[1, 2, 10])
    with pytest.raises(DataError, match="the labels of mnist:.* run from 1 to 10, expected 0 to 9"):
        load_data(f"mnist:{tmp_path}")


# CIFAR-10


def record(label: int, red: int) -> bytes:
    return bytes([label]) + bytes([red]) * 1024 + bytes(2048)


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
def test_cifar10_reads_the_binary_version(place, tmp_path):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    for k in range(1, 6):
        (folder / f"data_batch_{k}.bin").write_bytes(record(k, 10 * k) + record(0, 0))
    (folder / "test_batch.bin").write_bytes(record(9, 255))
    data = load_data(f"cifar10:{tmp_path}", **PLAIN3)
    assert data.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert data.shape == (3, 32, 32)
    assert [round(float(value) * 255) for value in data[4][0].mean((1, 2))] == [30, 0, 0]
    image, label = load_data(f"cifar10:{tmp_path}", split="test")[0]
    assert data.classes[label] == "truck"
    assert image[0, 0, 0] == pytest.approx((1 - 0.4914) / 0.2470)


def test_cifar10_reads_parquet(tmp_path):
    write_parquet(tmp_path / "cifar10-test.parquet", labels=[3, 8])
    data = load_data(f"cifar10:{tmp_path}", split="test")
    assert [data.classes[label] for label in data.labels] == ["cat", "ship"]
    assert data[1][0][:, 0, 0].tolist() == pytest.approx([0.5086 / 0.2470, 0.5178 / 0.2435, 0.5535 / 0.2616])


@pytest.mark.parametrize("data", [b"", record(1, 1)[:-1], b"\x80\x04pickle"])
def test_damaged_binary_batches_are_refused(data, tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(data)
    with pytest.raises(DataError, match=f"not a binary batch of CIFAR-10.*received {len(data)} bytes"):
        load_data(f"cifar10:{tmp_path}", split="test")


def test_cifar10_has_ten_classes(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(record(3, 0) + record(10, 0))
    with pytest.raises(DataError, match="the labels of cifar10:.* run from 3 to 10, expected 0 to 9"):
        load_data(f"cifar10:{tmp_path}", split="test")
    write_parquet(tmp_path / "cifar10-test.parquet", labels=[99, 0])
    with pytest.raises(DataError, match="run from 0 to 99, expected 0 to 9"):
        load_data(f"cifar10:{tmp_path}", split="test")


def test_cifar10_says_what_it_looked_for(tmp_path):
    with pytest.raises(
        DataError, match="cifar10-train.parquet, data_batch_1.bin, cifar-10-batches-bin/data_batch_1"
    ):
        load_data(f"cifar10:{tmp_path}")
    (tmp_path / "data_batch_1.bin").write_bytes(record(0, 0))
    with pytest.raises(DataError, match="has none of the files looked for: data_batch_2.bin"):
        load_data(f"cifar10:{tmp_path}")


# folders


def test_class_folders_become_labels(tmp_path):
    write_folder(tmp_path, ["dog", "cat"])
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    data = load_data(f"imagefolder:{tmp_path}", image_size=4, **PLAIN3)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.shape == (3, 4, 4)
    assert [round(float(image.max()) * 255) for image, _ in data] == [100, 101, 0, 1]
    assert load_data(f"imagefolder:{tmp_path}", split="test")[0][0].shape == (3, 224, 224)


@pytest.mark.parametrize(("folder", "held_out"), [("test", "test"), ("val", "test")])
def test_splits_are_folders(folder, held_out, tmp_path):
    write_folder(tmp_path / "train", ["a", "b", "c"])
    write_folder(tmp_path / folder, ["a", "b", "c"], count=1)
    assert len(load_data(f"imagefolder:{tmp_path}", split="train")) == 6
    assert len(load_data(f"imagefolder:{tmp_path}", split=held_out)) == 3


def test_images_are_resized_then_cropped_to_their_centre(tmp_path):
    """Of 512 x 256, the left and right 144 columns and the upper and lower 16 rows are cut off."""
    picture = np.zeros((256, 512, 3), np.uint8)
    picture[16:240, 144:368] = 200
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0.png").write_bytes(png(picture))
    image, _ = load_data(f"imagefolder:{tmp_path}", image_size=224, **PLAIN3)[0]
    assert torch.equal(image * 255, torch.full((3, 224, 224), 200.0))
    reduced = Image.fromarray(picture).resize((256, 128), Image.Resampling.BILINEAR).crop((72, 8, 184, 120))
    image, _ = load_data(f"imagefolder:{tmp_path}", image_size=112, **PLAIN3)[0]
    assert (image * 255 - torch.tensor(np.array(reduced)).permute(2, 0, 1)).abs().max() <= 1


def test_grey_and_palette_images_become_rgb(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0.png").write_bytes(png(np.full((4, 4), 7)))
    Image.new("P", (4, 4)).save(tmp_path / "x" / "1.gif")
    data = load_data(f"imagefolder:{tmp_path}", image_size=4)
    assert [image.shape for image, _ in data] == [(3, 4, 4), (3, 4, 4)]


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no class folders: expected CLASS/. or train/CLASS/"):
        load_data(f"imagefolder:{tmp_path}")
    write_folder(tmp_path / "train", ["a", "b"])
    with pytest.raises(DataError, match="class folders for train only; split='test' looks in test or val"):
        load_data(f"imagefolder:{tmp_path}", split="test")
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*train/c holds no images \(.bmp"):
        load_data(f"imagefolder:{tmp_path}")


def test_a_class_that_only_one_split_has_does_not_shift_the_labels(tmp_path):
    write_folder(tmp_path / "train", ["a", "b", "c"])
    write_folder(tmp_path / "val", ["b", "c"])
    with pytest.raises(DataError, match="the class folder .*val/a holds no images"):
        load_data(f"imagefolder:{tmp_path}", split="test")


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", flat(1)[:45], b"\x89PNG\r\n\x1a\n" + bytes(40)],
    ids=["empty", "text", "cut", "no chunks"],
)
def test_an_image_that_cannot_be_decoded_is_named(data, tmp_path):
    write_folder(tmp_path, ["a", "b"])
    (tmp_path / "b" / "0.png").write_bytes(data)
    loaded = load_data(f"imagefolder:{tmp_path}", image_size=4)
    with pytest.raises(DataError, match=r"b/0.png cannot be decoded"):
        loaded[2]


# Parquet


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("image", ["img", "image"])
def test_parquet_reads_the_layout_of_hugging_face(packed, image, tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, image=image, packed=packed)
    data = load_data(f"parquet:{path}")
    assert data.labels.tolist() == [1, 0]
    assert data.classes == ("0", "1")
    assert data.shape == (3, 4, 4)
    assert data[0][0][:, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert load_data(f"parquet:{path}", image_size=8, **PLAIN3)[1][0].equal(torch.ones(3, 8, 8))


def test_parquet_keeps_recorded_class_names_and_splits(tmp_path):
    write_parquet(tmp_path / "x-test.parquet", names=["no", "yes"])
    data = load_data(f"parquet:{tmp_path}/x-{{split}}.parquet", split="test")
    assert data.classes == ("no", "yes")
    with pytest.raises(DataError, match=r"x-train.parquet does not exist"):
        load_data(f"parquet:{tmp_path}/x-{{split}}.parquet")


@pytest.mark.parametrize("metadata", [b"[]", b"{", b'{"info": 1}', b"\xff"])
def test_foreign_metadata_names_no_classes(metadata, tmp_path):
    table = pa.table({"img": [flat(0)], "label": [0]}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert load_data(f"parquet:{tmp_path}/a.parquet").classes == ("0",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "kind"}, "has no column label or labels; its columns are: img, kind"),
        ({"image": "picture"}, "has no column image or img; its columns are: picture, label"),
        (
            {"labels": ["a", "b"]},
            "must hold an integer for every image; it has 2 rows of string, 0 of them empty",
        ),
        ({"labels": [1, None]}, "2 rows of int64, 1 of them empty"),
        ({"labels": [-1, 0]}, "run from -1 to 0, expected 0 to 0"),
        ({"labels": [0, 2], "names": ["a", "b"]}, "run from 0 to 2, expected 0 to 1"),
        ({"images": [b"x", flat(0)]}, "image 0 of .*a.parquet cannot be decoded"),
        ({"images": [None, flat(0)]}, "image 0 of .*a.parquet holds no encoded bytes but a NoneType"),
        ({"images": ["a.png", "b.png"], "packed": False}, "holds no encoded bytes but a str"),
    ],
)
def test_unusable_parquet_files_are_refused(options, message, tmp_path):
    write_parquet(tmp_path / "a.parquet", **options)
    with pytest.raises(DataError, match=message):
        load_data(f"parquet:{tmp_path}/a.parquet")


@pytest.mark.parametrize("data", [b"", b"no parquet file", b"PAR1" + bytes(100) + b"PAR1"])
def test_files_that_are_not_parquet_are_refused(data, tmp_path):
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match="a.parquet is not a Parquet file, or is damaged"):
        load_data(f"parquet:{tmp_path}/a.parquet")


def test_images_of_different_sizes_need_a_size(tmp_path):
    write_parquet(tmp_path / "a.parquet", images=[flat(1), flat(2, 5, 4)])
    with pytest.raises(
        DataError, match=r"image 1 of .* has shape \(3, 5, 4\), expected \(3, 4, 4\).*image_size="
    ):
        load_data(f"parquet:{tmp_path}/a.parquet").tensors()
    assert load_data(f"parquet:{tmp_path}/a.parquet", image_size=4).tensors()[0].shape == (2, 3, 4, 4)


# the real ones


@pytest.mark.data
def test_the_real_mnist(shared):
    data = load_data(f"mnist:{shared}", split="test")
    assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    train = load_data(f"mnist:{shared}")
    pixels = train.pixels[:].double() / 255
    assert (round(float(pixels.mean()), 4), round(float(pixels.std()), 4)) == (0.1307, 0.3081)


@pytest.mark.data
def test_the_real_cifar10(shared):
    data = load_data(f"cifar10:{shared}", split="test")
    assert len(data) == 10_000
    assert data.labels.bincount().tolist() == [1000] * 10
    images, _ = data.sample(300, seed=0).tensors()
    assert images.shape == (300, 3, 32, 32)
    assert images.mean((0, 2, 3)).abs().max() < 0.1
    assert (images.std((0, 2, 3)) - 1).abs().max() < 0.1
