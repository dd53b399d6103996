"""The page of a run: it holds every curve, sheet and setting, needs nothing else, and stays small."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from imgops.training import train
from imgops.training._curves import POINTS, drawing, thin, ticks
from imgops.training._page import grouped, set_apart
from tests.test_training import tiny

#: elements without an end
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """What a page refers to, its text, and whether its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.drawings: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [link for link in (given.get("src"), given.get("href")) if link]
        if tag == "svg":
            self.drawings.append(given["aria-label"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data}\n"


def test_a_run_has_a_page_of_all_that_it_recorded(tmp_path: Path) -> None:
    run = tmp_path / "a <run>"
    train(tiny(run, grid_kimg=0.016, augment="ada", seed=7), quiet=True)
    text = (run / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    shown = {name for label in page.drawings for name in label.split(", ")}
    assert shown == {name for record in records for name in record} - {"images", "seconds"}
    assert {"loss_g, loss_d", "logit_real, logit_fake", "augment_p", "images_per_second"} <= set(page.drawings)
    # newest first, and nothing from elsewhere
    sheets = [link for link in page.links if link.startswith("samples/")]
    assert sheets[1::2] == ["samples/0000000024.png", "samples/0000000016.png"]
    assert all((run / link).is_file() for link in page.links)
    assert "//" not in re.sub(r"<dd>.*?</dd>", "", text)
    for said in "a <run>", "24 of 24 images", "32,768", "4 (brick, gravel, retina, wood)", "cpu, ", "(instead of 0)":
        assert said in page.text
    assert "<div class=own><dt>seed</dt><dd>7 <i>" in text
    assert not list(run.glob(".scrap-*"))


def test_settings_that_differ_from_the_preset() -> None:
    from imgops.training import TrainingConfig

    plain = TrainingConfig("d", "o", preset="tiny", device="cpu").resolve()
    assert set_apart(plain, 1) == {"preset": "auto"}
    own = TrainingConfig("d", "o", preset="tiny", device="cpu", batch=8, r1_gamma=3.0, mirror=True).resolve()
    assert set_apart(own, 1) == {"preset": "auto", "batch": 16, "mirror": False, "r1_gamma": 0.0002 * 64**2 / 8}


def test_curves_are_grouped_distances_first() -> None:
    record = {"images": 1, "seconds": 1.0, "r1": 0.1, "loss_g": 1.0, "pseudo_p": 0.0, "fd_efficientnet-lite2": 9.0}
    found = grouped([record, {"images": 2, "seconds": 2.0, "loss_g": 2.0, "augment_p": 0.5}])
    assert list(found) == ["fd_efficientnet-lite2", "Losses", "Augmentation", "R1 penalty"]
    assert found["Losses"]["loss_g"] == [(1, 1.0), (2, 2.0)]
    assert found["Augmentation"] == {"pseudo_p": [(1, 0.0)], "augment_p": [(2, 0.5)]}


def test_long_curves_are_thinned_and_keep_their_extremes() -> None:
    series = [(float(x), math.sin(x) + 100 * (x == 4321)) for x in range(1, 20_001)]
    points = thin(series)
    assert len(points) == POINTS
    assert points[-1][0] == 20_000
    assert max(most for *_, most in points) > 99
    assert sum(mean for _, _, mean, _ in points) / POINTS == pytest.approx(sum(y for _, y in series) / 20_000, abs=0.02)
    assert len(drawing({"loss_g": series})) < 20_000
    assert thin(series[:3]) == [(x, y, y, y) for x, y in series[:3]]


@pytest.mark.parametrize("series", [[(1.0, 2.0)], [(1.0, 2.0), (5.0, 2.0)], [(1.0, -1e-9), (2.0, 1e9)]])
def test_a_drawing_of_few_or_equal_values_is_finite(series: list[tuple[float, float]]) -> None:
    text = drawing({"a": series})
    assert not re.search("nan|inf", text)
    places = [float(y) for points in re.findall(r'points="([^"]*)"', text) for y in re.findall(r",(-?[\d.]+)", points)]
    assert all(0 <= y <= 220 for y in places)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.13, 0.17), (-5, 2e6), (-3e-7, -2e-7), (0, 25_000_000)])
def test_ticks_lie_within_and_are_few(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-9 * (high - low) <= tick <= high + 1e-9 * (high - low) for tick in found)
