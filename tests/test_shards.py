"""Shards of WebDataset: the same pictures as in a folder, read at once, by pattern and URL, in any process."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import io
import json
import multiprocessing
import os
import pickle
import sys
import tarfile
import threading
import zipfile
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_cli import TINY, imgops
from torch.utils.data import DataLoader

from imgops.data import DataError, EndlessSampler, ImageFolder, ShardSet, open_dataset, prepare_dataset

webdataset = pytest.mark.skipif(importlib.util.find_spec("webdataset") is None, reason="webdataset is not installed")


def png(k: int, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (12, 8), (k * 7 % 256, k * 31 % 256, 255 - k))
    image.paste((k, 0, 0), (0, 0, 6, 4))
    image.save(buffer, format)
    return buffer.getvalue()


def write(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(k: int, classes: int = 3) -> dict[str, bytes]:
    return {f"{k:03d}.png": png(k), f"{k:03d}.cls": str(k % classes).encode()}


def shards(folder: Path, count: int = 3, each: int = 4) -> Path:
    """Shards of pictures 0, 1, ... with the classes 0, 1, 2, 0, ..."""
    folder.mkdir(exist_ok=True)
    for s in range(count):
        files: dict[str, bytes] = {}
        for k in range(s * each, (s + 1) * each):
            files |= sample(k)
        write(folder / f"s-{s:04d}.tar", files)
    return folder


def pictures(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    for k in range(count):
        (folder / f"{k:03d}.png").write_bytes(png(k))
    return folder


@pytest.mark.parametrize("shape", [8, (8, 12)])
def test_shards_and_a_folder_agree(tmp_path, shape):
    found, wanted = (
        open_dataset(shards(tmp_path / "s"), shape, mirror=True),
        ImageFolder(pictures(tmp_path / "p"), shape),
    )
    assert isinstance(found, ShardSet)
    assert (len(found), found.count) == (24, 12)
    assert found.labels.tolist() == [k % 3 for k in range(12)]
    assert found.class_names == ("0", "1", "2")
    assert found.names[5] == "s-0001.tar/005.png"
    for dataset in found, pickle.loads(pickle.dumps(found)):
        assert all(torch.equal(dataset[k][0], wanted[k][0]) and dataset[k][1] == k % 3 for k in range(12))
    assert torch.equal(found[13][0], found[1][0].flip(2))
    assert torch.equal(found.first_of_class(1, 2), torch.stack([wanted[1][0], wanted[4][0]]))
    assert found.describe() == f"{tmp_path}/s: 12 pictures, each mirrored as well; classes: 0, 1, 2"
    found.check()
    assert open_dataset(tmp_path / "s", 8, use_labels="none").labels is None
    assert open_dataset(tmp_path / "s" / "s-0001.tar", 8).count == 4


def test_an_index_is_found_once(tmp_path, monkeypatch):
    folder = shards(tmp_path / "s")
    first = open_dataset(folder, 8)
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == [
        f".s-000{s}.tar.index.json" for s in range(3)
    ]
    opened = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, mode: opened.append(Path(path).name) or real(path, mode))
    again = open_dataset(folder, 8)
    assert not opened
    assert (again.names, again.labels.tolist()) == (first.names, first.labels.tolist())
    assert torch.equal(again[7][0], first[7][0])
    # another shard at this place, and an index that is damaged, are found anew
    monkeypatch.undo()
    write(folder / "s-0001.tar", sample(0) | sample(1) | sample(2))
    (folder / ".s-0002.tar.index.json").write_text("{")
    monkeypatch.setattr(tarfile, "open", lambda path, mode: opened.append(Path(path).name) or real(path, mode))
    assert open_dataset(folder, 8).count == 11
    assert sorted(opened) == ["s-0001.tar", "s-0002.tar"]


def test_a_folder_that_cannot_be_written_is_read_all_the_same(tmp_path, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("imgops.data.datasets._shard_index.write_file", refuse)
    folder = shards(tmp_path / "s")
    assert open_dataset(folder, 8).count == 12
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


CAT, DOG = b'{"label": 0, "class": "cat"}', b'{"label": 1, "class": "dog"}'


@pytest.mark.parametrize(
    ("classes", "names", "labels"),
    [
        ([{"cls": b"1"}, {"cls": b" 0\n"}], ("0", "1"), [1, 0]),
        ([{"cls": b"dog"}, {"cls": b"cat"}], ("cat", "dog"), [1, 0]),
        (
            [{"json": b'{"label": 1, "class": "dog"}'}, {"json": b'{"label": 0, "class": "cat"}'}],
            ("cat", "dog"),
            [1, 0],
        ),
        (
            [{"cls": b"1", "json": b'{"class": "dog"}'}, {"json": b'{"class": "cat"}', "cls": b"0"}],
            ("cat", "dog"),
            [1, 0],
        ),
        ([{"json": b'{"cls": 0, "caption": "a dog"}'}, {"json": b'{"cls": 1}'}], ("0", "1"), [0, 1]),
        ([{"json": b"1"}, {"json": b"0"}], ("0", "1"), [1, 0]),
        ([{"json": b'{"class_name": "b"}'}, {"json": b'{"class_name": "a"}'}], ("a", "b"), [1, 0]),
        ([{"json": b'{"caption": "a dog"}'}, {}], (), None),
    ],
)
def test_classes(tmp_path, classes, names, labels):
    files: dict[str, bytes] = {}
    for k, said in enumerate(classes):
        files |= {f"{k}.png": png(k), **{f"{k}.{ending}": content for ending, content in said.items()}}
    dataset = open_dataset(write(tmp_path / "a.tar", files), 8)
    assert dataset.class_names == names
    assert (None if dataset.labels is None else dataset.labels.tolist()) == labels
    assert not dataset.left_out


def test_names_of_classes_beside_the_shards_and_folders_within(tmp_path):
    folder = shards(tmp_path / "s")
    (folder / "dataset.json").write_text('{"labels": null, "names": ["ant", "bee", "cat"]}')
    assert open_dataset(folder, 8).class_names == ("ant", "bee", "cat")
    write(tmp_path / "a.tar", {f"{place}/{k}.png": png(k) for k, place in enumerate(["b", "a", "b"])})
    dataset = open_dataset(tmp_path / "a.tar", 8, use_labels="folders")
    assert (dataset.class_names, dataset.labels.tolist()) == (("a", "b"), [1, 0, 1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"0.png": png(0), "0.cls": b"0", "1.png": png(1)},
            r"1\.png has no number of a class \(1 of 2 pict",
        ),
        ({"0.png": png(0), "0.cls": b"a", "1.png": png(1)}, r"1\.png has no class \(1 of 2"),
        ({"0.png": png(0), "0.cls": b"0", "1.png": png(1), "1.cls": b"2"}, "no picture has class 1"),
        ({"0.png": png(0), "0.json": b"{"}, r"a\.tar/0\.json: must be JSON"),
        ({"0.txt": b"x", "0.cls": b"1"}, r"no pictures in it; left out: \.txt \(1\), class without a picture \(1\)"),
        ({}, "no pictures in it"),
    ],
)
def test_shards_that_cannot_be_used(tmp_path, files, message):
    with pytest.raises(DataError, match=message) as error:
        open_dataset(write(tmp_path / "a.tar", files), 8)
    assert str(error.value).startswith(f"{tmp_path}/a.tar")


def test_damaged_shards(tmp_path):
    whole = write(tmp_path / "whole.tar", sample(0) | {"big.bmp": bytes(30000)} | sample(1)).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:20000])
    (tmp_path / "text.tar").write_bytes(b"hello" * 300)
    write(tmp_path / "packed.tar", sample(0), "w:gz")
    for name, message in (
        ("cut", r"cut\.tar: damaged or truncated shard \("),
        ("text", r"text\.tar: damaged or truncated shard \("),
        ("packed", r"packed\.tar: a compressed shard, in which no picture can be reached; unpack it first"),
        ("missing", r"missing\.tar: no such shard"),
    ):
        with pytest.raises(DataError, match=message) as error:
            open_dataset(tmp_path / f"{name}.tar", 8)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("start", "content", "message"),
    [
        (0, b"\x55" * 512, r"what follows byte 2,048 is neither"),
        # a hole, as an unfinished download leaves it
        (0, bytes(512), r"what follows byte 2,048 is neither"),
        (0, None, "it breaks off at byte 2,048"),
        (100, None, "it breaks off at byte 2,048"),
    ],
)
def test_damage_between_two_files_is_no_end(tmp_path, start, content, message):
    path = write(tmp_path / "a.tar", sample(0) | sample(1))
    with tarfile.open(path) as archive:
        third = archive.getmembers()[2].offset + start
    with open(path, "r+b") as file:
        file.seek(third)
        file.truncate() if content is None else file.write(content)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"a\.tar: damaged or truncated shard \({message}"):
            open_dataset(path, 8)


def test_damage_within_names_the_picture(tmp_path):
    write(tmp_path / "a.tar", {"0.png": png(0), "1.png": png(1)[:60], "2.jpg": b"x"})
    dataset = open_dataset(tmp_path / "a.tar", 8)
    with pytest.raises(DataError, match=r"a\.tar/1\.png: .*; 2 of 3 pictures cannot be used, a\.tar/2\.jpg too"):
        dataset.check()
    # a shard that is replaced while it is read
    write(tmp_path / "a.tar", {"0.png": png(0)})
    with open(tmp_path / "a.tar", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"2\.jpg: the shard has become shorter"):
        dataset[2]


def test_what_is_left_out_is_told(tmp_path):
    files = {"0.png": png(0), "0.txt": b"a caption", "0.mask.png": png(1), "noending": b"", "0.jpg": png(2, "JPEG")}
    dataset = open_dataset(write(tmp_path / "a.tar", files), 8)
    assert (dataset.names, dict(dataset.left_out)) == (
        ["a.tar/0.png"],
        {".txt": 1, ".mask.png": 1, "no ending": 1, ".jpg": 1},
    )


def test_an_ending_in_capitals(tmp_path):
    write(tmp_path / "S.TAR", sample(0))
    assert open_dataset(tmp_path / "S.TAR", 8).count == open_dataset(tmp_path, 8).count == 1


def test_what_lies_beside_shards_is_told(tmp_path):
    folder = shards(tmp_path / "s")
    (folder / "sub").mkdir()
    for name in "b.tar.gz", "readme.txt", "sub/t.tar", ".hidden":
        (folder / name).write_bytes(b"x")
    for _ in range(2):
        assert open_dataset(folder, 8).left_out == {".gz": 1, ".txt": 1, ".tar": 1, "hidden": 1}


def test_a_folder_with_pictures_is_no_set_of_shards(tmp_path):
    folder = shards(tmp_path / "s", 1)
    (folder / "a.png").write_bytes(png(0))
    dataset = open_dataset(folder, 8)
    assert isinstance(dataset, ImageFolder)
    assert dataset.names == ["a.png"]
    assert dataset.left_out[".tar"] == 1


@webdataset
def test_patterns(tmp_path):
    folder = shards(tmp_path / "s")
    assert open_dataset(f"{folder}/s-{{0000..0002}}.tar", 8).count == 12
    dataset = open_dataset(f"{folder}/s-0002.tar::{folder}/s-{{0000,0002}}.tar", 8)
    # in the order that is given, and none twice
    assert [name[:10] for name in dataset.names[::4]] == ["s-0002.tar", "s-0000.tar"]
    with pytest.raises(DataError, match=r"s-0003\.tar: no such shard"):
        open_dataset(f"{folder}/s-{{0000..0003}}.tar", 8)
    with pytest.raises(DataError, match=r"this pattern cannot be expanded"):
        open_dataset(f"{folder}/${{NOWHERE}}/s-{{0000..0003}}.tar", 8)
    # the same file name in two folders
    other = shards(tmp_path / "t", 1)
    assert open_dataset(f"{folder}/s-0000.tar::{other}/s-0000.tar", 8).names[4] == f"{other}/s-0000.tar/000.png"


def test_patterns_and_urls_without_webdataset(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    monkeypatch.setenv("IMGOPS_SHARDS", str(tmp_path / "kept"))
    for source in "s-{0000..0002}.tar", "https://localhost/s.tar":
        with pytest.raises(ImportError, match=r"webdataset, which .* pip install 'imgops\[shards\]'"):
            open_dataset(source, 8)
    assert open_dataset(shards(tmp_path / "s"), 8).count == 12


@webdataset
def test_a_pattern_of_other_shards_is_prepared_anew(tmp_path):
    source = f"{shards(tmp_path / 's')}/s-{{0000..0002}}.tar"
    assert prepare_dataset(source, tmp_path / "out").count == 12
    assert prepare_dataset(source, tmp_path / "out").again
    write(tmp_path / "s" / "s-0001.tar", sample(0))
    with pytest.raises(DataError, match="out is there already, and was not made of this"):
        prepare_dataset(source, tmp_path / "out")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """The address of a server of shards, and what is asked of it; what is fetched is kept in tmp_path/kept."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *args):
            asked.append(self.path)

    folder = shards(tmp_path / "s")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("IMGOPS_SHARDS", str(tmp_path / "kept"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@webdataset
def test_shards_by_url_are_fetched_once(tmp_path, served, monkeypatch):
    address, asked = served
    told = []
    dataset = open_dataset(f"{address}/s-{{0000..0002}}.tar", 8, tell=lambda done, count: told.append((done, count)))
    local = open_dataset(tmp_path / "s", 8)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert dataset.names == local.names
    assert dataset.labels.tolist() == local.labels.tolist()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(dataset, (local[k] for k in range(12)), strict=False))
    assert sorted(asked) == [f"/s-000{s}.tar" for s in range(3)]
    open_dataset(f"{address}/s-{{0000..0002}}.tar", 8)
    assert len(asked) == 3
    with pytest.raises(DataError, match=r"s-0009\.tar: cannot be fetched; curl ended with status 22$"):
        open_dataset(f"{address}/s-0009.tar", 8)
    with pytest.raises(DataError, match=r"^teapot://s\.tar: pipe: and other schemes than http, .* may run a command"):
        open_dataset("teapot://s.tar", 8)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(DataError, match=r"; the program curl is not installed$"):
            open_dataset(f"{address}/s-0008.tar", 8)
    # nothing half is left
    assert len([path for path in (tmp_path / "kept").iterdir() if path.suffix == ".tar"]) == 3
    assert not list((tmp_path / "kept").glob(".scrap*"))


def _opens(source: str) -> None:
    assert open_dataset(source, 8).count == 12


@webdataset
def test_processes_fetch_a_shard_once(tmp_path, served):
    address, asked = served
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_opens, args=(f"{address}/s-{{0000..0002}}.tar",)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(asked) == [f"/s-000{s}.tar" for s in range(3)]


@webdataset
def test_commands_run_only_where_they_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGOPS_SHARDS", str(tmp_path / "kept"))
    source = f"pipe:cat {shards(tmp_path / 's')}/s-0001.tar; touch {tmp_path}/ran"
    for written in source, source.replace("pipe", "PIPE"), f" {source}", f"{source} ://x.tar":
        with pytest.raises(DataError, match="may run a command of the shell; set IMGOPS_PIPE=1 to allow that"):
            open_dataset(written, 8)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("IMGOPS_PIPE", "1")
    assert open_dataset(source, 8).count == 4
    assert (tmp_path / "ran").exists()
    with pytest.raises(DataError, match="cannot be fetched; the command ended with status 3"):
        open_dataset("pipe:exit 3", 8)


def zipped(path: Path, folder: Path, compression: int) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


@pytest.mark.parametrize("kind", ["stored", "deflated", "shards"])
def test_many_processes_read_at_the_same_time(tmp_path, kind):
    folder = pictures(tmp_path / "p", 60)
    if kind == "shards":
        dataset = open_dataset(shards(tmp_path / "s", 3, 20), 8, use_labels="none")
    else:
        method = zipfile.ZIP_STORED if kind == "stored" else zipfile.ZIP_DEFLATED
        dataset = ImageFolder(zipped(tmp_path / "a.zip", folder, method), 8)
    wanted = ImageFolder(folder, 8)
    # the file is open before the processes are forked, and is read by all of them and by this one
    dataset[0]
    loader = DataLoader(dataset, 4, sampler=EndlessSampler(60, 1), num_workers=2, multiprocessing_context="fork")
    order = iter(EndlessSampler(60, 1))
    for batch in islice(loader, 30):
        indices = list(islice(order, 4))
        assert torch.equal(batch[0], torch.stack([wanted[k][0] for k in indices]))
        assert torch.equal(dataset[indices[0]][0], wanted[indices[0]][0])


def _reads(dataset: ImageFolder, wanted: list[torch.Tensor], failed: multiprocessing.Queue) -> None:
    failed.put(sum(not torch.equal(dataset[k][0], picture) for _ in range(20) for k, picture in enumerate(wanted)))


def test_a_zip_that_is_open_is_read_after_a_fork(tmp_path):
    folder = pictures(tmp_path / "p")
    dataset = ImageFolder(zipped(tmp_path / "a.zip", folder, zipfile.ZIP_DEFLATED), 8)
    wanted = [dataset[k][0] for k in range(12)]
    context = multiprocessing.get_context("fork")
    failed = context.Queue()
    processes = [context.Process(target=_reads, args=(dataset, wanted, failed)) for _ in range(4)]
    for process in processes:
        process.start()
    _reads(dataset, wanted, failed)
    assert [failed.get(timeout=60) for _ in range(5)] == [0] * 5
    for process in processes:
        process.join()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_one_order(world):
    whole = list(islice(EndlessSampler(7, 3, 5), 8 * 24))
    parts = [list(islice(EndlessSampler(7, 3, 5, rank, world), 8 * 24 // world)) for rank in range(world)]
    assert [index for step in zip(*parts, strict=True) for index in step] == whole
    with pytest.raises(ValueError, match=f"rank must be 0 to {world - 1} of {world} processes; got {world}"):
        EndlessSampler(7, 3, 5, world, world)


def test_batches_go_on_where_they_ended(tmp_path):
    dataset = open_dataset(shards(tmp_path / "s"), 8, mirror=True)

    def batches(start: int) -> DataLoader:
        return DataLoader(dataset, 3, sampler=EndlessSampler(len(dataset), 2, start), generator=torch.Generator())

    whole = list(islice(batches(0), 20))
    for step in 1, 8, 13:
        for a, b in zip(whole[step:], islice(batches(3 * step), 20 - step), strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])


def test_a_run_on_shards_resumes_bit_by_bit(tmp_path):
    data = shards(tmp_path / "s")
    for run, lengths in ("whole", [0.024]), ("parts", [0.008, 0.016, 0.024]):
        for k, kimg in enumerate(lengths):
            more = ["--resume"] if k else ["--data", data, *TINY]
            imgops("train", "--out", tmp_path / run, *more, "--kimg", kimg)
    networks = [(tmp_path / run / "checkpoint-0000000024" / "G.safetensors").read_bytes() for run in ("whole", "parts")]
    assert networks[0] == networks[1]


def test_the_record_of_a_label_is_json(tmp_path):
    folder = shards(tmp_path / "s", 1)
    open_dataset(folder, 8)
    table = json.loads((folder / ".s-0000.tar.index.json").read_text())
    assert table["pictures"][1][0] == "001.png"
    assert os.stat(folder / "s-0000.tar").st_size == table["of"][1]
