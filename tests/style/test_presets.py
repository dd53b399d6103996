"""The presets of ``imgops style``: what they set, what stays as given, and that faithful keeps more than bold."""

from __future__ import annotations

import dataclasses

import pytest

from imgops.data.pictures import read_picture, read_settings, resize_picture
from imgops.style import NNSTSettings, OptimizeSettings, Transfer, TransferSettings, with_preset
from imgops.style.presets import PRESETS
from tests.style_sources import QUICK, write_sources
from tests.test_cli import error, imgops


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("presets"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_what_it_names_and_nothing_else(name):
    plain = TransferSettings(size=100, device="cpu")
    made, found = with_preset(plain, name), {}
    for one, other in ((plain, made), (plain.optimize, made.optimize), (plain.nnst, made.nnst)):
        for field in dataclasses.fields(one):
            value = getattr(other, field.name)
            if field.name in PRESETS[name]:
                found[field.name] = value
            elif not dataclasses.is_dataclass(value):
                assert value == getattr(one, field.name)
    assert found == PRESETS[name]


def test_what_is_given_stays():
    made = with_preset(TransferSettings(method="adain"), "bold", ["method", "content_share"])
    assert (made.method, made.nnst.content_share) == ("adain", TransferSettings().nnst.content_share)


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="style: preset must be faithful, painterly or bold; got 'cubist'"):
        with_preset(TransferSettings(), "cubist")
    with pytest.raises(TypeError, match="style: given must be names of settings, as a list; got 'method'"):
        with_preset(TransferSettings(), "bold", "method")


def test_options_count_beside_a_preset(folder, tmp_path):
    for preset, more in (("bold", ("--method", "adain", "--alpha", "0.5")), ("painterly", ())):
        arguments = (
            "style",
            folder / "cat.png",
            folder / "sea.png",
            "--preset",
            preset,
            *more,
            "--weights",
            "embedded",
        )
        imgops(*arguments, "-o", tmp_path / f"{preset}.png", *QUICK)
    bold, painterly = (read_settings(tmp_path / f"{name}.png") for name in ("bold", "painterly"))
    assert (bold["method"], bold["alpha"]) == ("adain", 0.5)
    assert (painterly["method"], painterly["nnst"]["content_share"]) == ("nnst", PRESETS["painterly"]["content_share"])
    assert "--preset must be faithful, painterly or bold; got 'cubist'" in error(*arguments, "--preset", "cubist")


@pytest.mark.parametrize("method", ["optimize", "nnst", "adain"])
def test_faithful_keeps_more_of_the_content_than_bold(method):
    content, style = (resize_picture(read_picture(f"samples:{name}").pixels, 96) for name in ("chelsea", "coffee"))
    few = OptimizeSettings(first_size=96, steps=20), NNSTSettings(smallest=24, scale_steps=20, final_steps=10)
    plain = TransferSettings(method=method, weights="embedded", size=96, optimize=few[0], nnst=few[1])
    distance = {}
    for preset in ("faithful", "bold"):
        result = Transfer(with_preset(plain, preset, ["method"]))(content, [style])
        distance[preset] = float((result - content).square().mean())
    assert distance["faithful"] < distance["bold"]
