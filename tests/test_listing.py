"""What a folder or zip holds: which files count, what is left out and said, odd names, links, labels."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image, features

from imgops.data import DataError, ImageFolder, open_dataset
from imgops.data.datasets.crops import RandomCrops
from tests.test_cli import imgops


def png(color: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def labels(*pairs: object) -> str:
    return json.dumps({"labels": pairs})


# --- what counts ---


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.palm", "a.h5", "a.mpg", "a.grib", "a.bufr", "a.txt", "a.mp4", "a", "a.svg", "a.PDF", "a.wmf"]
)
def test_what_pillow_cannot_open_is_left_out_aloud(name, tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / name).write_bytes(b"%PDF-1.4 something else")
    dataset = ImageFolder(tmp_path, 8)
    assert dataset.names == ["0.png"]
    dataset.check()
    kind = Path(name).suffix.lower() or "no ending"
    assert dataset.left_out == {kind: 1}
    assert dataset.describe() == f"{tmp_path}: 1 picture; classes: none; left out: {kind} (1)"
    assert RandomCrops(tmp_path, 16).describe() == f"{tmp_path}: 1 picture; left out: {kind} (1)"


def test_formats_that_this_pillow_lacks_are_left_out(tmp_path, monkeypatch):
    from imgops.data.pictures import formats

    for name in ("a.png", "a.webp", "a.jp2", "a.avif", "a.eps"):
        (tmp_path / name).write_bytes(png())
    monkeypatch.setattr(features, "check", lambda feature: feature not in ("webp", "jpg_2000", "avif"))
    monkeypatch.setattr(formats.EpsImagePlugin, "has_ghostscript", lambda: False)
    formats._decodes.cache_clear()
    try:
        dataset = ImageFolder(tmp_path, 8)
    finally:
        formats._decodes.cache_clear()
    assert dataset.names == ["a.png"]
    assert dataset.left_out == {".webp": 1, ".jp2": 1, ".avif": 1, ".eps": 1}


def test_many_kinds_end_in_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / ".hidden").mkdir()
    for i in range(12):
        for k in range(i + 1):
            (tmp_path / f"{k}.kind{i}").write_text("")
    (tmp_path / "line\nbreak.x\ny").write_text("")
    said = ImageFolder(tmp_path, 8).describe()
    assert said.startswith(f"{tmp_path}: 1 picture; classes: none; left out: .kind11 (12), .kind10 (11), ")
    assert said.endswith(", others (12)")
    assert said.isprintable()


def test_nothing_to_train_on_says_what_there_is(tmp_path):
    (tmp_path / "a.pdf").write_text("")
    for attempt in (lambda: ImageFolder(tmp_path, 8), lambda: RandomCrops(tmp_path, 16)):
        with pytest.raises(DataError, match=r"no pictures in it; left out: \.pdf \(1\)$"):
            attempt()


def test_a_dry_run_says_what_it_found(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "b.png"):
        (data / name).write_bytes(png())
    (data / "c.pdf").write_text("")
    (data / "dataset.json").write_text(labels(["a.png", 0], ["b.png", 1]))
    start = ("train", "--data", data, "--resolution", 8, "--out", tmp_path / "run")
    _, told = imgops(*start, "--dry-run", "--no-estimate")
    assert f"{data}: 2 pictures; classes: 0, 1; left out: .pdf (1)" in told


# --- links ---


def test_linked_folders_and_files_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    for place in ("elsewhere/1.png", "elsewhere/deep/2.png", "data/0.png", "3.png"):
        (tmp_path / place).write_bytes(png())
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/file.png").symlink_to(tmp_path / "3.png")
    (tmp_path / "data/dead.png").symlink_to(tmp_path / "nowhere.png")
    dataset = ImageFolder(tmp_path / "data", 8)
    assert dataset.names == ["0.png", "file.png", "linked/1.png", "linked/deep/2.png"]
    assert dataset.left_out == {"broken link": 1}
    dataset.check()
    assert len(RandomCrops(tmp_path / "data", 16).paths) == 4


def test_links_that_lead_back_end(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/0.png").write_bytes(png())
    for name, target in {"a/up": "..", "a/b/self": ".", "a/b/top": "../..", "again": "a"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "loop.png").symlink_to("loop.png")
    dataset = ImageFolder(tmp_path, 8)
    assert dataset.names == ["a/b/0.png"]
    assert dataset.left_out == {"folder linked twice": 4, "broken link": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    dataset = ImageFolder(tmp_path, 8)
    assert dataset.names == ["a.png"]
    assert dataset.left_out == {"no regular file": 1, "empty folder": 1}


# --- zips ---


def refusal(path: Path) -> str | None:
    """What reading all of a zip ends in, if it is refused."""
    try:
        ImageFolder(path, 8).check()
    except DataError as error:
        return str(error)
    return None


def archive(path: Path, entries: dict[str, bytes | str] | list[tuple[str, bytes | str]]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items() if isinstance(entries, dict) else entries:
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "folder", ["", "photos/", "photos/2024/", "./", "./photos/", "/abs/", "C:\\photos\\", "photos\\"]
)
@pytest.mark.parametrize("named", ["a.png", "./a.png", "from the root"])
def test_labels_in_the_folder_that_holds_all_of_a_zip(folder, named, tmp_path):
    first = f"{folder}a.png" if named == "from the root" else named
    table = labels([first, 1], ["sub/b.png", 0])
    files = {f"{folder}dataset.json": table, f"{folder}a.png": png(7), f"{folder}sub/b.png": png(9), "readme.txt": "x"}
    dataset = ImageFolder(archive(tmp_path / "p.zip", files), 8)
    assert dataset.count == 2
    assert [name.split("/")[-1] for name in dataset.names] == ["a.png", "b.png"]
    assert dataset.labels.tolist() == [1, 0]
    assert [int(dataset[i][0].max()) for i in range(2)] == [7, 9]
    assert dataset.left_out == {".txt": 1}
    assert "2 pictures; classes: 0, 1; left out: .txt (1)" in dataset.describe()


@pytest.mark.parametrize("depth", [1, 2])
def test_labels_in_the_only_subfolder(depth, tmp_path):
    folder = tmp_path.joinpath("data", *["only"] * depth)
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "dataset.json").write_text(labels(["a.png", 0]))
    dataset = ImageFolder(tmp_path / "data", 8)
    assert dataset.labels.tolist() == [0]
    assert dataset.left_out == {}
    assert ImageFolder(tmp_path / "data", 8, use_labels=False).left_out == {}


def test_labels_of_a_part_are_not_those_of_all(tmp_path):
    for name in ("a/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(png())
    (tmp_path / "a/dataset.json").write_text(labels(["0.png", 0]))
    dataset = ImageFolder(tmp_path, 8)
    assert dataset.labels is None
    assert "left out: .json (1)" in dataset.describe()


def test_odd_entries_of_a_zip(tmp_path):
    entries = [("./a.png", png(1)), ("sub\\b.png", png(2)), ("/c.png", png(3)), ("../d.png", png(4)), ("a.png", png(5))]
    entries += [("./.hidden/e.png", png()), ("__MACOSX/._a.png", png()), ("x/../f.png", png()), ("empty/", b"")]
    with pytest.warns(UserWarning, match="Duplicate name"):
        dataset = ImageFolder(archive(tmp_path / "p.zip", [*entries, ("/c.png", png(6))]), 8)
    assert dataset.names == ["a.png", "c.png", "sub/b.png"]
    # the later entries
    assert [int(dataset[i][0].max()) for i in range(3)] == [5, 6, 2]
    assert dataset.left_out == {"hidden": 2, 'name with ".."': 2, "entry that a later one replaces": 2}
    dataset.check()


def test_names_in_utf8_that_the_zip_does_not_call_so(tmp_path):
    for name, label in (("größe.png", "größe.png"), ("e\u0301.png", "\u00e9.png")):
        table = json.dumps({"labels": [[label, 0]]})
        content = archive(tmp_path / "p.zip", {name: png(3), "dataset.json": table}).read_bytes()
        # the flag, in the entry's own head and in the directory
        flagged = bytearray(content)
        for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = flagged.index(head)
            flagged[at + place + 1] &= ~0x08
        (tmp_path / "p.zip").write_bytes(flagged)
        dataset = ImageFolder(tmp_path / "p.zip", 8)
        assert dataset.names == [name]
        assert dataset.labels.tolist() == [0]
        assert int(dataset[0][0].max()) == 3


def test_a_link_within_a_zip_is_no_picture(tmp_path):
    link = zipfile.ZipInfo("b.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        file.writestr("a.png", png())
        file.writestr(link, "a.png")
    dataset = ImageFolder(tmp_path / "p.zip", 8)
    assert dataset.names == ["a.png"]
    assert dataset.left_out == {"link in the zip": 1}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_names_itself_or_the_picture(compression, tmp_path):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a.png", png() + bytes(200))
        file.writestr("dataset.json", labels(["a.png", 0]))
    content, messages = path.read_bytes(), []
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes((content[place] ^ 0xFF,)) + content[place + 1 :])
        messages.append(refusal(path))
    refused = [message for message in messages if message is not None]
    assert len(refused) > 20
    assert all(str(path) in message and message.isprintable() for message in refused)


def test_an_encrypted_entry_says_so(tmp_path):
    content = bytearray(archive(tmp_path / "p.zip", {"a.png": png()}).read_bytes())
    for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + place] |= 1
    (tmp_path / "p.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.zip/a\.png: cannot be read \(.*encrypted"):
        ImageFolder(tmp_path / "p.zip", 8)[0]


def test_an_entry_larger_than_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(100_000_000))
    monkeypatch.setenv("IMGOPS_PICTURE_GB", "0.05")
    with pytest.raises(DataError, match=r"a\.png: what it unpacks to .*set IMGOPS_PICTURE_GB"):
        ImageFolder(tmp_path / "p.zip", 8)[0]


# --- labels ---

TABLES = {
    "huge": (
        labels(["0.png", 0], ["1.png", 1], ["2.png", 3_000_000_000]),
        "no picture has class 2, and 2.png has 3000",
    ),
    "beyond 64 bits": (labels(["0.png", 0], ["1.png", 1], ["2.png", 10**30]), "class of 2.png must be an integer"),
    "thousands of digits": ('{"labels": [["0.png", ' + "9" * 5000 + "]]}", "the class of 0.png must be an integer"),
    "negative": (labels(["0.png", -1]), "the class of 0.png must be an integer from 0; got -1"),
    "float": (labels(["0.png", 1.0]), "the class of 0.png must be an integer from 0; got 1.0"),
    "NaN": ('{"labels": [["0.png", NaN]]}', "the class of 0.png must be an integer from 0; got NaN"),
    "infinite": ('{"labels": [["0.png", 1e999]]}', "the class of 0.png must be an integer from 0; got Infinity"),
    "bool": (labels(["0.png", True]), "the class of 0.png must be an integer from 0; got true"),
    "null": (labels(["0.png", None]), "the class of 0.png must be an integer from 0; got null"),
    "text": (labels(["0.png", "cat"]), 'the class of 0.png must be an integer from 0; got "cat"'),
    "list": (labels(["0.png", [0]]), r"the class of 0.png must be an integer from 0; got [0]"),
    "long": (labels(["0.png", "cat" * 9999]), "the class of 0.png must be an integer from 0"),
    "long name": (labels(["a" * 999, 0]), "has a label but is not in"),
    "name is a number": (labels([0, "0.png"]), 'each label must be ["name", class]; got [0, "0.png"]'),
    "flat": (labels("0.png", 0), 'each label must be ["name", class]; got "0.png"'),
    "three": (labels(["0.png", 0, 1]), 'each label must be ["name", class]; got ["0.png", 0, 1]'),
    "nested": (labels([["0.png", 0]]), 'each label must be ["name", class]; got [["0.png", 0]]'),
    "null entry": (labels(None), 'each label must be ["name", class]; got null'),
    "two": (labels(["0.png", 0], ["0.png", 1]), "0.png has two labels, 0 and 1"),
    "two names for one": (labels(["0.png", 0], ["./0.png", 1]), "./0.png has two labels, 0 and 1"),
    "unknown": (labels(["9.png", 0]), "9.png has a label but is not in"),
    "outside": (labels(["../0.png", 0]), "../0.png has a label but is not in"),
    "empty name": (labels(["", 0]), "has a label but is not in"),
    "incomplete": (labels(["0.png", 0]), "1.png has no label (2 of 3 pictures have none)"),
    "empty": (labels(), "0.png has no label (3 of 3 pictures have none)"),
    "object": ('{"labels": {"0.png": 0}}', '"labels" must be a list of ["name.png", class]; got {"0.png": 0}'),
    "string": ('{"labels": "0.png"}', '"labels" must be a list of ["name.png", class]; got "0.png"'),
    "number": ('{"labels": 3}', '"labels" must be a list of ["name.png", class]; got 3'),
    "without the key": (
        '{"0.png": 0}',
        'must be JSON of the form {"labels": [["name.png", 0], ...]}; got {"0.png": 0}',
    ),
    "bare list": ('[["0.png", 0]]', 'must be JSON of the form {"labels": [["name.png", 0], ...]}; got'),
    "bare null": ("null", "must be JSON of the form"),
    "cut off": ('{"labels": [["0.png", 0', "must be JSON of the form"),
    "nothing": ("", "must be JSON of the form"),
    "deep": ('{"labels": ' + "[" * 100_000, "must be JSON of the form"),
    "no text": (b"\x89PNG\xff\xfe\x00", "must be JSON of the form"),
}


@pytest.fixture
def three(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png())
    return tmp_path


@pytest.mark.parametrize(("table", "message"), TABLES.values(), ids=TABLES)
def test_a_malformed_table_ends_in_one_line(table, message, three):
    (three / "dataset.json").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DataError) as raised:
        open_dataset(three, 8)
    text = str(raised.value)
    assert text.startswith(f"{three}/dataset.json: ")
    assert message in text
    assert text.isprintable()
    assert len(text) < len(str(three)) + 200


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_a_table(encoding, three):
    table = labels(["0.png", 1], [".\\1.png", 0], ["./2.png", 1])
    (three / "dataset.json").write_bytes(table.encode(encoding))
    dataset = open_dataset(three, 8)
    assert torch.equal(dataset.labels, torch.tensor([1, 0, 1]))


def test_a_picture_may_be_listed_twice_with_one_class(three):
    (three / "dataset.json").write_text(labels(["0.png", 1], ["1.png", 0], ["./0.png", 1], ["2.png", 0], ["1.png", 0]))
    assert open_dataset(three, 8).labels.tolist() == [1, 0, 0]


def test_many_classes_take_no_more_memory_than_pictures(three):
    (three / "dataset.json").write_text(labels(["0.png", 2], ["1.png", 1], ["2.png", 0]))
    dataset = open_dataset(three, 8)
    assert dataset.class_names == ("0", "1", "2")
    assert "classes: 0, 1, 2" in dataset.describe()
