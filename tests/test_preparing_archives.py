"""``imgops data`` on archives as their sites give them: CIFAR-10, MNIST and LSUN; nothing in them is run."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgops.data import DataError, open_dataset
from tests.test_preparing import RNG, noise, pixels, prepare, same

PICTURES = RNG.integers(0, 256, (30, 3, 32, 32), np.uint8)
LABELS = [k % 10 for k in range(30)]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches/{name}")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def cifar(folder: Path, kind: str, protocol: int = 2) -> Path:
    """Two batches of ten pictures for training and one for testing."""
    batches = {"data_batch_1": slice(0, 10), "data_batch_2": slice(10, 20), "test_batch": slice(20, 30)}
    if kind == "binary":
        files = {
            f"{name}.bin": b"".join(bytes([LABELS[k]]) + PICTURES[k].tobytes() for k in range(30)[part])
            for name, part in batches.items()
        }
        files["batches.meta.txt"] = "\n".join([*CLASSES, ""]).encode()
    else:
        files = {
            name: pickle.dumps(
                {b"batch_label": b"1", b"labels": LABELS[part], b"data": PICTURES[part].reshape(10, -1)}, protocol
            )
            for name, part in batches.items()
        }
        files["batches.meta"] = pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}, protocol)
    return archive(folder / f"cifar-10-{kind}.tar.gz", files)


@pytest.mark.parametrize(("split", "part"), [("train", slice(0, 20)), ("test", slice(20, 30)), ("all", slice(0, 30))])
@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar_10(tmp_path, kind, split, part):
    made = prepare(cifar(tmp_path, kind), tmp_path / "out.zip", split=split)
    found = open_dataset(tmp_path / "out.zip", 32)
    order = list(range(30)[part])
    if split == "all":
        # by name the test comes first
        order = order[20:] + order[:20]
    assert same(pixels(found), [torch.from_numpy(PICTURES[k]) for k in order])
    assert found.labels.tolist() == [LABELS[k] for k in order]
    assert found.class_names == made.class_names == tuple(CLASSES)


META = pickle.dumps({b"label_names": [b"a"]}, 2)


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_runs_nothing(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for content in {b"labels": [0], b"data": Evil()}, [Evil()], {b"labels": Evil(), b"data": PICTURES[:1]}:
        files = {"data_batch_1": pickle.dumps(content, protocol), "batches.meta": META}
        source = archive(tmp_path / "cifar-10-python.tar.gz", files)
        with pytest.raises(DataError, match=r"data_batch_1: damaged or truncated batch \(it asks for \w+\.system"):
            prepare(source, "out")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"labels": [0, 1], b"data": PICTURES[:1].reshape(1, -1)}, "as many labels as pictures are needed"),
        ({b"labels": [0.5], b"data": PICTURES[:1].reshape(1, -1)}, "as many labels as pictures are needed"),
        ({b"labels": [0], b"data": PICTURES[:1].reshape(1, -1).astype(np.float32)}, "an array of bytes is needed"),
        ({b"labels": [0], b"data": PICTURES[:1, 0].reshape(1, -1)}, "cannot reshape"),
        ({b"labels": [0]}, "data"),
        ([1], "items"),
    ],
)
def test_batches_that_are_not_cifar(tmp_path, content, message):
    files = {"data_batch_1": pickle.dumps(content, 2), "batches.meta": META}
    with pytest.raises(DataError, match=f"data_batch_1: damaged or truncated batch .*{message}"):
        prepare(archive(tmp_path / "cifar-10-python.tar.gz", files), tmp_path / "out")


@pytest.mark.parametrize(("kind", "label"), [("binary", 7), ("python", 1), ("python", -1)])
def test_a_label_without_a_name(tmp_path, kind, label):
    if kind == "binary":
        files = {"data_batch_1.bin": bytes([label]) + PICTURES[0].tobytes(), "batches.meta.txt": b"cat\ndog\n\n"}
    else:
        batch = {b"labels": [label], b"data": PICTURES[:1].reshape(1, -1)}
        files = {"data_batch_1": pickle.dumps(batch, 2), "batches.meta": META}
    with pytest.raises(DataError, match=rf"data_batch_1.*: damaged or truncated batch \(it has class {label}, and bat"):
        prepare(archive(tmp_path / f"cifar-10-{kind}.tar.gz", files), tmp_path / "out")


def test_archives_that_are_not_cifar(tmp_path):
    path = archive(tmp_path / "cifar-10-python.tar.gz", {"readme.html": b"x"})
    with pytest.raises(DataError, match="it lacks what CIFAR-10 has"):
        prepare(path, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: damaged or truncated archive"):
        prepare(path, tmp_path / "out")


DIGITS = RNG.integers(0, 256, (7, 28, 28), np.uint8)


def mnist(folder: Path, packed: bool = True, labels: bool = True) -> Path:
    folder.mkdir()
    for split, part in ("train", slice(0, 5)), ("t10k", slice(5, 7)):
        files = {f"{split}-images-idx3-ubyte": struct.pack(">4BIII", 0, 0, 8, 3, len(DIGITS[part]), 28, 28)}
        files[f"{split}-images-idx3-ubyte"] += DIGITS[part].tobytes()
        if labels:
            numbers = bytes(LABELS[part])
            files[f"{split}-labels-idx1-ubyte"] = struct.pack(">4BI", 0, 0, 8, 1, len(numbers)) + numbers
        for name, content in files.items():
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("split", "order"), [("train", [0, 1, 2, 3, 4]), ("test", [5, 6])])
def test_mnist(tmp_path, packed, split, order):
    (mnist(tmp_path / "in", packed) / "notes.txt").touch()
    made = prepare(tmp_path / "in", tmp_path / "out", split=split, channels=1)
    assert made.left_out == {".txt": 1}
    assert Image.open(next((tmp_path / "out").rglob("*.png"))).size == (28, 28)
    # 28 px is no size of a network's
    prepare(tmp_path / "in", tmp_path / "28", split=split, channels=1, resolution=28)
    found = open_dataset(tmp_path / "28", 28, 1)
    assert same(pixels(found), [torch.from_numpy(DIGITS[k])[None] for k in order])
    if split == "train":
        assert (found.labels.tolist(), found.class_names) == (LABELS[:5], tuple("01234"))


def test_mnist_without_labels_and_damaged(tmp_path):
    prepare(mnist(tmp_path / "in", labels=False), tmp_path / "out", resolution=8)
    assert open_dataset(tmp_path / "out", 8).labels is None
    images = tmp_path / "in" / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    content = gzip.decompress(whole)
    for broken, message in (
        (whole[:100], "damaged or truncated idx file"),
        (gzip.compress(content[:-5]), "damaged or truncated idx file"),
        (gzip.compress(b"\0\0\x0d\x03" + content[4:]), "it does not begin as 3 dimensions of bytes do"),
    ):
        images.write_bytes(broken)
        with pytest.raises(DataError, match=rf"train-images-idx3-ubyte\.gz: .*{message}"):
            prepare(tmp_path / "in", tmp_path / "other")
    images.unlink()
    with pytest.raises(DataError, match="there are no pictures of the split train in it, as train-images-idx3-ubyte"):
        prepare(tmp_path / "in", tmp_path / "other")


@pytest.mark.skipif(importlib.util.find_spec("lmdb") is None, reason="lmdb is not installed")
def test_lsun(tmp_path):
    import lmdb

    wanted = {}
    with lmdb.open(str(tmp_path / "church_lmdb"), 1 << 20) as database, database.begin(write=True) as transaction:
        for k in range(5):
            buffer = io.BytesIO()
            image = noise()
            image.save(buffer, "WEBP", lossless=True)
            key = f"{k * 7919 % 97:040x}"
            wanted[key] = image
            transaction.put(key.encode(), buffer.getvalue())
        transaction.put(b"bad", b"no picture")
        transaction.put(b"\xff\x00", buffer.getvalue())
    made = prepare(tmp_path / "church_lmdb", tmp_path / "out")
    assert list(made.refused) == ["bad.webp"]
    for key, image in wanted.items():
        found = Image.open(tmp_path / "out" / f"{key}.png")
        assert np.array_equal(np.asarray(found), np.asarray(image))
    assert (tmp_path / "out" / "ff00.png").exists()
    file = tmp_path / "church_lmdb" / "data.mdb"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"church_lmdb: truncated, data\.mdb has [\d,]+ of [\d,]+ bytes"):
        prepare(tmp_path / "church_lmdb", tmp_path / "other")
    file.write_bytes(b"x" * 8192)
    with pytest.raises(DataError, match="church_lmdb: cannot be read"):
        prepare(tmp_path / "church_lmdb", tmp_path / "other")


def test_lsun_as_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "church_lmdb.zip", "w") as packed:
        packed.writestr("church_lmdb/data.mdb", b"x")
    with pytest.raises(DataError, match=r"church_lmdb\.zip: it holds an lmdb, as LSUN's zips do; unpack it"):
        prepare(tmp_path / "church_lmdb.zip", tmp_path / "out")


def test_lsun_without_lmdb(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(ImportError, match=r"the package lmdb is not installed; .* pip install 'imgops\[lmdb\]'"):
        prepare(tmp_path, tmp_path.with_name("out"))
