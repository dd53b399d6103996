"""``imgops data --crop``: the upper part of upright pictures, and boxes."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from imgops.data import DataError, open_dataset
from tests.test_preparing import noise, photos, pixels, prepare


def quarters(width: int, height: int) -> Image.Image:
    """Rows of red, then blue; the left half darker than the right one."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (0, height // 2, width, height))
    return image


def test_tall_keeps_the_upper_part(tmp_path):
    (tmp_path / "in").mkdir()
    quarters(16, 32).save(tmp_path / "in" / "tall.png")
    quarters(32, 16).save(tmp_path / "in" / "wide.png")
    prepare(tmp_path / "in", tmp_path / "out", resolution=8, crop="tall")
    tall, wide = pixels(open_dataset(tmp_path / "out", 8))
    assert (tall[0] == 255).all()
    assert wide[2, -1].float().mean() > 200


BOXES = {"csv": "name,x,y,width,height\na.png,30,10,10,10\nb.png, 0, 0, 8, 8\nb.png,90,40,10,10\nc.png,500,0,9,9\n"}
# as old Macs end lines
BOXES["cr"] = BOXES["csv"].replace("\n", "\r")
BOXES["json"] = json.dumps(
    [
        dict(zip(("name", "x", "y", "width", "height"), (name, *map(int, rest)), strict=True))
        for name, *rest in (line.split(",") for line in BOXES["csv"].splitlines()[1:])
    ]
)


@pytest.mark.parametrize("kind", BOXES)
def test_boxes_are_kept_with_a_margin(tmp_path, kind):
    for name in "a", "b", "c", "d":
        (tmp_path / "in" / "sub").mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (100, 50), "white")
        image.paste((255, 0, 0), (30, 10, 40, 20))
        image.save(tmp_path / "in" / "sub" / f"{name}.png")
    (tmp_path / f"boxes.{kind}").write_text(BOXES[kind])
    boxes = str(tmp_path / f"boxes.{kind}")
    made = prepare(tmp_path / "in", tmp_path / "out", resolution=8, crop="boxes", boxes=boxes, margin=0.0)
    found = open_dataset(tmp_path / "out", 8)
    assert found.names == ["sub/a.png", "sub/b-2.png", "sub/b.png"]
    assert (found.picture(0)[1] == 0).all()
    assert made.refused == {
        "sub/c.png": "its box lies outside its 100 x 50 pixels",
        "sub/d.png": f"{boxes} has no box for it",
    }
    prepare(tmp_path / "in", tmp_path / "wide", resolution=8, crop="boxes", boxes=boxes, margin=1.0)
    share = (open_dataset(tmp_path / "wide", 8).picture(0)[1] < 128).float().mean()
    assert abs(share - 1 / 9) < 0.05


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "name,x,y\na.png,1,2\n", "line 2 has no width; it gives a name, x, y, width and height"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,x,4\n", "line 2 must have numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2\n", "line 2 must have numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,0,4\n", "line 2 must have a name, finite numbers"),
        ("b.csv", "name,x,y,width,height\na.png,1,2,nan,4\n", "line 2 must have a name, finite numbers"),
        ("b.csv", "", "it gives no boxes"),
        ("b.csv", f'name,x,y,width,height\n"{"a" * 140_000}', "line 1 cannot be read \\(field larger than field limit"),
        (
            "b.json",
            f'[{{"name": "a", "x": 1{"0" * 400}, "y": 1, "width": 1, "height": 1}}]',
            "entry 0 must have numbers",
        ),
        ("b.json", "{", "must be JSON, a list of objects"),
        ("b.json", '{"a.png": 1}', "must be a list of objects"),
        ("b.json", "[1]", "entry 0 must have numbers"),
        ("b.json", '[{"name": 1, "x": 1, "y": 1, "width": 1, "height": 1}]', "entry 0 must have a name"),
    ],
)
def test_boxes_that_cannot_be_read(tmp_path, name, text, message):
    source = photos(tmp_path / "in", 1)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as found:
        prepare(source, tmp_path / "out", resolution=8, crop="boxes", boxes=str(tmp_path / name))
    assert str(found.value).startswith(str(tmp_path / name))


def test_two_boxes_of_one_picture_may_be_the_same(tmp_path):
    (tmp_path / "in").mkdir()
    noise(40, 40).save(tmp_path / "in" / "a.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("name,x,y,width,height\na.png,0,0,9,9\na.png,20,20,9,9\na.png,0,0,9,9\n")
    settings = {"resolution": 8, "crop": "boxes", "boxes": str(boxes), "drop_duplicates": True}
    made = prepare(tmp_path / "in", tmp_path / "out", **settings)
    assert (made.count, made.duplicates) == (2, {"a.png, box 3": "a.png"})
    assert open_dataset(tmp_path / "out", 8).names == ["a-2.png", "a.png"]
