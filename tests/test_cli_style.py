"""``imgops style``: pictures, masks, colors, options and its trainings; every error in one line."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from imgops.cli._options import parse_bytes, parse_layers
from imgops.cli._style import read_mask
from imgops.cli.dream import dream
from imgops.cli.style import IDLE, transfer
from imgops.cli.style_adain import train_adain
from imgops.cli.style_fast import train_fast
from imgops.data.pictures import read_picture, read_settings, resize_picture, write_picture
from imgops.dream import DreamSettings
from imgops.style import AdaINTraining, FastTraining, OptimizeSettings, Transfer, TransferSettings
from tests.style_sources import QUICK, options, write_sources
from tests.test_cli import error, imgops


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_sources(tmp_path_factory.mktemp("style"))


@pytest.mark.parametrize("method", ["optimize", "fast", "adain"])
def test_a_picture_and_its_settings(folder, tmp_path, method):
    style = folder / ("net.safetensors" if method == "fast" else "sea.png")
    out = tmp_path / "new" / "out.png"
    stdout, _ = imgops("style", folder / "cat.png", style, "-o", out, "--seed", "7", *options(folder, method))
    assert stdout.splitlines()[-1].startswith(f"{out}: 48 x 32 pixels, ")
    assert "peak memory" in stdout
    assert Image.open(out).size == (48, 32)
    settings = read_settings(out)
    assert (settings["method"], settings["styles"], settings["content"]) == (
        method,
        [str(style)],
        str(folder / "cat.png"),
    )
    if method == "optimize":
        assert settings["optimize"]["seed"] == 7
        assert "in 1 round: about" in stdout


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_other_formats_keep_the_settings(folder, tmp_path, ending):
    out = tmp_path / f"out.{ending}"
    imgops("style", folder / "cat.png", folder / "sea.png", "-o", out, *options(folder, "adain"))
    assert read_settings(out)["method"] == "adain"


def test_the_same_seed_gives_the_same_file(folder, tmp_path):
    for out in ("a.png", "b.png"):
        arguments = (folder / "cat.png", folder / "sea.png", folder / "dog.png", "--init", "noise")
        imgops("style", *arguments, "-o", tmp_path / out, *options(folder))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("method", ["optimize", "fast", "adain"])
def test_masks_leave_the_rest(folder, tmp_path, method):
    mask = torch.zeros(1, 80, 120)
    mask[..., 60:] = 1
    write_picture(tmp_path / "mask.png", mask)
    style = folder / ("net.safetensors" if method == "fast" else "sea.png")
    plain, masked = tmp_path / "plain.png", tmp_path / "masked.png"
    imgops("style", folder / "cat.png", style, "-o", masked, "--mask", tmp_path / "mask.png", *options(folder, method))
    imgops("style", folder / "cat.png", style, "-o", plain, *options(folder, method))
    content = Image.open(folder / "cat.png")
    expected = resize_picture(read_picture(folder / "cat.png").pixels, 48)
    assert content.size == (60, 40)
    result = read_picture(masked).pixels
    assert (result[..., :22] - expected[..., :22]).abs().max() < 0.005
    assert (result[..., 26:] - expected[..., 26:]).abs().mean() > 0.01


@pytest.mark.parametrize("keep", ["luma", "coral", "histogram"])
@pytest.mark.parametrize("method", ["optimize", "fast", "adain"])
def test_colors_are_kept(folder, tmp_path, method, keep):
    gray = torch.linspace(0, 1, 60).expand(3, 40, 60)
    write_picture(tmp_path / "gray.png", gray)
    style = folder / ("net.safetensors" if method == "fast" else "sea.png")
    arguments = ("style", tmp_path / "gray.png", style, "--keep-colors", keep)
    imgops(*arguments, "-o", tmp_path / "kept.png", *options(folder, method))
    kept = read_picture(tmp_path / "kept.png").pixels
    imgops("style", tmp_path / "gray.png", style, "-o", tmp_path / "plain.png", *options(folder, method))
    assert (kept - read_picture(tmp_path / "plain.png").pixels).abs().max() > 0.002
    if keep == "luma" or (keep, method) == ("coral", "fast"):
        # a gray content stays gray
        assert (kept - kept.mean(0, keepdim=True)).abs().max() < 0.06


def test_transparency_is_kept(folder, tmp_path):
    alpha = torch.zeros(1, 40, 60)
    alpha[..., 30:] = 1
    write_picture(tmp_path / "cut.png", torch.rand(3, 40, 60), alpha=alpha)
    imgops("style", tmp_path / "cut.png", folder / "sea.png", "-o", tmp_path / "out.png", *options(folder, "adain"))
    result = read_picture(tmp_path / "out.png")
    assert result.alpha is not None
    assert result.alpha.shape == (1, 32, 48)
    assert (float(result.alpha[..., :20].max()), float(result.alpha[..., 28:].min())) == (0, 1)


def test_a_preview_follows(folder, tmp_path):
    preview = tmp_path / "now.png"
    imgops(
        "style",
        folder / "cat.png",
        folder / "sea.png",
        "-o",
        tmp_path / "o.png",
        "--preview",
        preview,
        *options(folder),
    )
    assert max(Image.open(preview).size) in (32, 48)


def test_memory_makes_tiles(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("imgops.style.planning.program_memory", lambda device: 450e6)
    size = ("--size", "600", "--first-size", "600", "--steps", "1")
    arguments = (
        "style",
        folder / "sea.png",
        folder / "cat.png",
        "-o",
        tmp_path / "o.png",
        *options(folder, "optimize"),
    )
    message = error(*arguments, *size, "--memory", "100MB")
    least = re.search(r"--memory must be at least (\S+ GB)", message)
    assert least, message
    stdout, _ = imgops(*arguments, *size, "--memory", least[1])
    assert "in tiles of" in stdout


def test_amounts_and_layers():
    amounts = {"4GB": 4e9, "900 MB": 9e8, "1.5g": 1.5e9, "2GiB": 2e9, "100": 100}
    assert {text: parse_bytes("memory", text) for text in amounts} == amounts
    assert parse_layers("x", "relu1_1=256, relu2_1") == {"relu1_1": 256, "relu2_1": 1}
    for text in ("", "4 apples", "-1GB", "0"):
        with pytest.raises(ValueError, match="memory takes"):
            parse_bytes("memory", text)


def test_a_mask_of_another_size_but_shape_will_do(folder, tmp_path):
    write_picture(tmp_path / "mask.png", torch.ones(1, 20, 30))
    picture = read_picture(folder / "cat.png").pixels
    assert read_mask(str(tmp_path / "mask.png"), picture, "cat").shape == (1, 20, 30)


def broken_files(folder, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    whole = (folder / "cat.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    write_picture(tmp_path / "wide.png", torch.ones(1, 10, 60))
    (tmp_path / "none").mkdir()
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html></html>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": "{tmp}/nowhere.png"}, "{tmp}/nowhere.png: No such file or directory"),
        ({"content": "{tmp}/text.png"}, "{tmp}/text.png: not a picture"),
        ({"content": "{tmp}/empty.png"}, "{tmp}/empty.png: the file is empty"),
        ({"content": "{tmp}/cut.png"}, "{tmp}/cut.png: damaged"),
        ({"content": "{tmp}/none"}, "{tmp}/none: there is nothing in this folder that ends in .png"),
        ({"content": "samples:dog"}, "samples:dog: no such sample; there are samples:astronaut"),
        ({"style": "{tmp}/text.png"}, "{tmp}/text.png: not a picture"),
        (
            {"more": ["--mask", "{tmp}/wide.png"]},
            "{tmp}/wide.png: the mask is 60 x 10 pixels, {dir}/cat.png is 60 x 40",
        ),
        ({"more": ["--mask", "{tmp}/nowhere.png"]}, "No such file"),
        ({"more": ["--content-layers", "relu4_9"]}, "VGG has no layer 'relu4_9'; did you mean relu4_"),
        ({"more": ["--style-layers", "relu1_1=x"]}, "--style-layers takes layers like"),
        ({"more": ["--method", "magic"]}, "--method must be optimize, nnst, fast or adain; got 'magic'"),
        ({"more": ["--style-weights", "1,2"]}, "weights must have one for each of the 1 styles; got 2"),
        (
            {"more": ["--mask", "{dir}/cat.png", "--mask", "{dir}/cat.png"]},
            "--mask must be given once for each of the 1 styles",
        ),
        (
            {"style": "{dir}/net.safetensors", "more": ["--method", "fast", "--style-mask", "{dir}/sea.png"]},
            "--style-mask is for the methods optimize, nnst and adain",
        ),
        ({"more": ["--preview", "{dir}/cat.png"]}, "--preview {dir}/cat.png is one of the sources"),
        ({"more": ["--preview", "{tmp}/results/out.png"]}, "two results would have this name"),
        ({"out": "{dir}/cat.png/out.png"}, "cat.png"),
        ({"more": ["--keep-colors", "red"]}, "--keep-colors must be luma, coral or histogram"),
        ({"more": ["--weights", "{tmp}/page.pth"]}, "{tmp}/page.pth: a web page, not weights"),
        ({"more": ["--device", "abacus"]}, "--device must be auto, cpu, cuda or cuda:N; got 'abacus'"),
        ({"more": ["--size", "2"]}, "--size must be 16 or more; got 2"),
        ({"more": ["--alpha", "2", "--method", "adain"]}, "--alpha must be in [0, 1]; got 2.0"),
        ({"more": ["--memory", "much"]}, "--memory takes an amount like 4GB"),
        (
            {"more": ["--method", "fast"]},
            "sea.png: the method fast takes the network of a style; make it: imgops style",
        ),
        ({"out": "{tmp}/out.doc"}, "pictures are written as .png"),
        ({"out": "{dir}/cat.png"}, "--out {dir}/cat.png is one of the sources"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(folder, tmp_path, changes, message):
    broken_files(folder, tmp_path)

    def put(text):
        return text.format(tmp=tmp_path, dir=folder)

    before = (folder / "cat.png").read_bytes()
    out = put(changes.get("out", "{tmp}/results/out.png"))
    more = [put(text) for text in changes.get("more", [])]
    arguments = (put(changes.get("content", "{dir}/cat.png")), put(changes.get("style", "{dir}/sea.png")), "-o", out)
    assert put(message) in error("style", *arguments, *options(folder), *more)
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())
    assert (folder / "cat.png").read_bytes() == before


def test_a_command_with_a_slip_is_no_picture():
    assert "train-fst: no such file, and no such command; did you mean train-fast?" in error("style", "train-fst", "x")


def test_options_that_do_nothing_are_told(folder, tmp_path):
    _, stderr = imgops(
        *("style", folder / "cat.png", folder / "net.safetensors", "-o", tmp_path / "out.png", "--size", "48"),
        *("--method", "fast", "--alpha", "0.5", "--style-layers", "relu1_1", "--seed", "3", "--keep-colors", "luma"),
    )
    assert stderr == "imgops: warning: --alpha, --style-layers, --seed do nothing with the method fast\n"
    _, stderr = imgops("style", folder / "cat.png", folder / "sea.png", "-o", tmp_path / "two.png", *QUICK)
    assert stderr == ""


def test_every_option_of_a_method_is_one_of_the_command():
    parameters = inspect.signature(transfer).parameters
    assert {name for names in IDLE.values() for name in names} <= set(parameters)


SMALL = {"1 x 1": (1, 1), "15 x 15": (15, 15), "3 x 60": (3, 60), "60 x 2": (60, 2)}


@pytest.mark.parametrize("method", ["optimize", "adain", "fast"])
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_small_pictures_are_enlarged(folder, tmp_path, method, shape):
    """As content and as style, with and without a size; what the one refused size recommends works."""
    write_picture(tmp_path / "small.png", torch.rand(3, *shape))
    write_picture(tmp_path / "mask.png", torch.ones(1, *shape))
    style = folder / "net.safetensors" if method == "fast" else tmp_path / "small.png"
    least = math.ceil(16 * max(shape) / min(shape))
    arguments = ["style", tmp_path / "small.png", style, "--mask", tmp_path / "mask.png", *options(folder, method)]
    del arguments[arguments.index("--size") : arguments.index("--size") + 2]
    _, stderr = imgops(*arguments, "-o", tmp_path / "a.png")
    assert max(Image.open(tmp_path / "a.png").size) == least
    assert f"small.png is {shape[1]} x {shape[0]} pixels: enlarged to a size of {least}" in stderr
    if least > 16:
        assert f"size must be at least {least} for" in error(*arguments, "-o", tmp_path / "b.png", "--size", least - 1)
    imgops(*arguments, "-o", tmp_path / "b.png", "--size", least)
    assert max(Image.open(tmp_path / "b.png").size) == least


def striped(first, second, alpha=None):
    """A mask of two colors, left and right."""
    colors = torch.tensor([first, second], dtype=torch.float32).T[:, None].repeat_interleave(15, 2)
    return colors.expand(3, 20, 30), None if alpha is None else striped([alpha[0]] * 3, [alpha[1]] * 3)[0][:1]


@pytest.mark.parametrize(
    ("mask", "left", "said"),
    [
        (striped([0, 0, 1], [0, 0, 0]), 1, "has colors, of which the largest channel counts"),
        (striped([1, 0, 0], [0, 0, 0]), 1, "largest"),
        (striped([0, 1, 1], [0, 0, 0]), 1, "largest"),
        # blue on white: what is white is meant
        (striped([1, 1, 1], [0, 0, 1]), 1, "smallest"),
        (striped([1, 1, 1], [0, 0, 0]), 1, ""),
        (striped([0.4, 0.4, 0.4], [0, 0, 0]), 0.4, ""),
        # the mask is in the alpha
        (striped([0, 0, 0], [0, 0, 0], [1, 0]), 1, "its alpha is taken"),
        (striped([1, 1, 1], [1, 1, 1], [0.6, 0]), 0.6, ""),
        (striped([1, 1, 1], [0, 0, 0], [1, 0]), 1, ""),
        (striped([1, 1, 1], [0, 0, 0], [1, 1]), 1, ""),
        (striped([0.02, 0.02, 0.02], [0, 0, 0]), 0.02, "the mask is at most 5 of 255 bright"),
    ],
)
def test_masks_as_they_are_meant(tmp_path, recwarn, mask, left, said):
    pixels, alpha = mask
    write_picture(tmp_path / "mask.png", pixels, alpha=alpha)
    read = read_mask(str(tmp_path / "mask.png"), torch.rand(3, 20, 30), "cat")
    assert read.shape == (1, 20, 30)
    torch.testing.assert_close(
        read, torch.tensor([left, 0.0]).repeat_interleave(15).expand(1, 20, 30), rtol=0, atol=2e-3
    )
    told = [str(warning.message) for warning in recwarn.list]
    assert [said in line for line in told] == ([True] if said else [])


def test_a_mask_of_a_palette_and_a_black_one(folder, tmp_path):
    image = Image.new("P", (30, 20), 0)
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.paste(1, (0, 0, 15, 20))
    image.save(tmp_path / "mask.png")
    with pytest.warns(UserWarning, match="largest channel"):
        assert read_mask(str(tmp_path / "mask.png"), torch.rand(3, 20, 30), "cat").mean() == 0.5
    write_picture(tmp_path / "black.png", torch.zeros(1, 40, 60))
    arguments = ("style", folder / "cat.png", folder / "sea.png", "--mask", tmp_path / "black.png")
    assert "black.png: the mask is black all over, which leaves nothing" in error(*arguments, *options(folder))


@pytest.mark.parametrize("method", ["optimize", "adain", "fast"])
def test_a_narrow_picture(folder, tmp_path, method):
    write_picture(tmp_path / "panorama.png", torch.rand(3, 20, 240))
    style = folder / "net.safetensors" if method == "fast" else tmp_path / "panorama.png"
    arguments = ("style", tmp_path / "panorama.png", style, "-o", tmp_path / "out.png", *options(folder, method))
    imgops(*arguments, "--size", "240")
    assert Image.open(tmp_path / "out.png").size == (240, 20)
    assert "size must be at least 192 for a picture of 240 x 20; got 100" in error(*arguments, "--size", "100")


def test_a_mask_on_transparency(tmp_path):
    alpha = torch.zeros(1, 20, 30)
    alpha[..., :15] = 1
    write_picture(tmp_path / "mask.png", torch.ones(3, 20, 30), alpha=alpha)
    torch.testing.assert_close(read_mask(str(tmp_path / "mask.png"), torch.rand(3, 40, 60), "cat"), alpha)


@pytest.mark.parametrize("method", ["optimize", "adain", "fast"])
@pytest.mark.parametrize("keep", [None, "coral"])
def test_a_gray_mask_goes_half_the_way(folder, method, keep):
    """Half of what a white one changes, or of what it leaves of the style; nothing where it is black."""
    content = read_picture(folder / "cat.png").pixels
    optimize = OptimizeSettings(first_size=32, steps=2, later_steps=1)
    settings = TransferSettings(
        method=method,
        size=60,
        weights=str(folder / "enc.safetensors"),
        decoder=str(folder / "dec.safetensors"),
        optimize=optimize,
        keep_colors=keep,
    )
    fast = method == "fast"
    transfer = Transfer(settings, [str(folder / "net.safetensors")] if fast else [])
    styles = [] if fast else [read_picture(folder / "sea.png").pixels]
    right = (torch.arange(60) >= 30).float().expand(1, 40, 60)
    masked = transfer(content, styles, masks=[right])
    assert (masked[..., :28] - content[..., :28]).abs().max() < 1e-5
    if method != "optimize":
        # what the networks make does not depend on how white the mask is
        half, whole = (transfer(content, styles, masks=[torch.full((1, 40, 60), share)]) for share in (0.5, 1.0))
        torch.testing.assert_close(half, (whole + content) / 2, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        (transfer, OptimizeSettings),
        (transfer, TransferSettings),
        (train_fast, FastTraining),
        (train_adain, AdaINTraining),
        (dream, DreamSettings),
    ],
)
def test_the_defaults_are_those_of_the_settings(command, settings):
    parameters, compared = inspect.signature(command).parameters, 0
    for field in dataclasses.fields(settings):
        # these are parsed, or mean something else where they are not given
        if field.name in parameters and field.name not in {"size", "device", "widths"}:
            assert parameters[field.name].default == field.default, field.name
            compared += 1
    assert compared >= 5


def test_help():
    for arguments in (("style", "--help"), ("style",)):
        stdout, _ = imgops(*arguments)
        assert "imgops style samples:chelsea samples:gravel" in stdout
        assert "train-adain" in stdout


SHORT = ("--size", "32", "--batch", "2", "--steps", "2", "--save-every", "1", "--device", "cpu")


@pytest.mark.parametrize("kind", ["train-fast", "train-adain"])
def test_a_trained_network_is_used(folder, tmp_path, kind):
    out, data = tmp_path / "new" / "net.safetensors", tmp_path / "data"
    data.mkdir()
    for name in ("cat", "dog", "sea"):
        (data / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    fast = kind == "train-fast"
    more = (folder / "sea.png", "--data", data, "--widths", "4,6,8") if fast else ("--contents", data, "--styles", data)
    arguments = ("style", kind, *more, "-o", out, "--weights", folder / "enc.safetensors", *SHORT)
    stdout, _ = imgops(*arguments, "--preview", tmp_path / "now.png")
    assert f"{out}: step 2 of 2, total " in stdout
    assert Image.open(tmp_path / "now.png").size[1] == 32
    assert "a training is there; resume it" in error(*arguments)
    stdout, _ = imgops(*arguments, "--resume", "--steps", "3")
    assert "step 3 of 3" in stdout
    use = (out, "--method", "fast") if fast else (folder / "sea.png", "--method", "adain", "--decoder", out)
    plain = ("--weights", folder / "enc.safetensors", "--size", "48", "--device", "cpu")
    imgops("style", folder / "cat.png", *use, *plain, "-o", tmp_path / "result.png")
    assert Image.open(tmp_path / "result.png").size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train-fast", "{dir}/cat.png", "-o", "x.pth"), "out must end in .safetensors; got x.pth"),
        (("train-fast", "{dir}/cat.png", "-o", "x.safetensors", "--widths", "4,5"), "--widths takes three numbers"),
        (("train-fast", "{dir}/cat.png", "-o", "x.safetensors", "--data", "{tmp}/no"), "{tmp}/no"),
        (("train-fast", "{dir}/no.png", "-o", "x.safetensors"), "No such file"),
        (("train-adain", "-o", "x.safetensors", "--lr", "-1"), "--lr must be 0 or more; got -1"),
        (("train-adain", "-o", "x.safetensors", "--resume"), "there is no training to resume"),
    ],
)
def test_errors_of_the_trainings(folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    put = [text.format(tmp=tmp_path, dir=folder) for text in arguments]
    assert message.format(tmp=tmp_path) in error("style", *put, "--weights", folder / "enc.safetensors", *SHORT)
    assert not list(tmp_path.iterdir())
