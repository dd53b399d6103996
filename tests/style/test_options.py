"""What options and arguments mean to the commands and methods: folders, networks, dtypes, gray, what does nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image

from imgops.data import read_picture, resize_picture, write_picture
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.models.style.transform_net import TransformNet
from imgops.style import (
    Objective,
    OptimizeSettings,
    Transfer,
    TransferSettings,
    optimize,
    planning,
    stylize_adain,
    stylize_fast,
)
from imgops.style.nnst_settings import NNSTSettings
from imgops.style.optimization import _start
from imgops.style.prepared import PreparedTransfer
from imgops.style.settings import METHODS
from tests.test_cli import error, imgops

QUICK = ("--size", "48", "--device", "cpu")
STEPS = ("--first-size", "48", "--steps", "2", "--weights", "embedded")

DREAM = ("--octaves", "1", "--steps", "1", "--weights", "embedded")


@pytest.fixture
def place(tmp_path):
    torch.manual_seed(0)
    write_picture(tmp_path / "cat.png", torch.rand(3, 40, 60))
    write_picture(tmp_path / "sea.png", torch.rand(3, 48, 48))
    network = TransformNet(widths=(4, 6, 8), blocks=1)
    network.deconv3.conv2d.bias.data.fill_(127.0)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "net.safetensors")
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_encoder_may_be_of_any_dtype(dtype):
    torch.manual_seed(0)
    encoder = VGG((1, 1), widths=(4, 6), padding_mode="replicate").eval().requires_grad_(False)
    content, style = torch.rand(3, 32, 40), torch.rand(3, 36, 32)
    settings = OptimizeSettings(
        size=40, first_size=32, steps=3, later_steps=2, content_layers={"relu2_1": 1}, style_layers={"relu1_1": 1}
    )
    expected = optimize(content, [style], encoder, settings)
    for kind in ("gram", "wasserstein"):
        chosen = OptimizeSettings(**{**vars(settings), "style_loss": kind})
        found = optimize(content.to(dtype), [style.to(dtype)], encoder.to(dtype), chosen)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        if kind == "gram":
            assert (found - expected).abs().mean() < 0.01
    decoder = AdaINDecoder((1,), widths=(4, 6)).to(dtype)
    for kinds in ((dtype, dtype), (dtype, torch.float32), (torch.float32, dtype)):
        found = stylize_adain(content, [style], encoder.to(kinds[0]), decoder.to(kinds[1]))
        assert (found.dtype, found.shape) == (torch.float32, content.shape)
    assert stylize_fast(content.to(dtype), TransformNet((2, 3, 4), 1).to(dtype)).dtype == dtype


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keep_colors", [None, "luma"])
def test_strength_lays_any_methods_result_over_the_content(place, method, keep_colors):
    torch.manual_seed(0)
    content, style = torch.rand(3, 40, 60), torch.rand(3, 48, 48)
    fast = method == "fast"

    def painted(strength):
        settings = TransferSettings(
            method=method,
            weights="embedded",
            size=48,
            strength=strength,
            keep_colors=keep_colors,
            optimize=OptimizeSettings(steps=1, first_size=48),
            nnst=NNSTSettings(smallest=48, scale_steps=1, final_steps=0),
        )
        networks, styles = ([str(place / "net.safetensors")], []) if fast else ([], [style])
        return Transfer(settings, networks)(content, styles)

    whole, small = painted(1.0), resize_picture(content, 48)
    assert (whole - small).abs().max() > 0.01
    torch.testing.assert_close(painted(0.25), small + 0.25 * (whole - small))
    assert torch.equal(painted(0.0), small)
    with pytest.raises(ValueError, match=r"style: strength must be in \[0, 1\]; got 1\.5"):
        painted(1.5)


@pytest.mark.parametrize("command", ["style", "dream"])
@pytest.mark.parametrize("kind", ["new", "there"])
def test_a_slash_or_a_folder_that_is_there_makes_a_folder(place, command, kind):
    out = place / "dir.v2"
    if kind == "there":
        out.mkdir()
    rest = (place / "sea.png", "--method", "adain") if command == "style" else DREAM
    imgops(command, place / "cat.png", *rest, "-o", f"{out}/" if kind == "new" else out, *QUICK)
    assert [path.name for path in out.iterdir()] == ["cat-sea.png" if command == "style" else "cat-dream.png"]
    message = error(command, place / "cat.png", *rest, "-o", place / "dir.v3", *QUICK)
    assert "got '.v3'; the name of a new folder ends in /" in message


@pytest.mark.parametrize("keep", ["luma", "coral", "histogram"])
@pytest.mark.parametrize("method", ["optimize", "adain", "fast"])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_gray_stays_gray_and_is_written_so(place, method, keep, mode):
    gray = Image.fromarray(np.arange(40 * 60, dtype=np.uint32).reshape(40, 60).astype(np.uint8)).convert(mode)
    gray.save(place / "gray.png")
    style = "hubble" if method == "fast" else place / "sea.png"
    steps = STEPS if method == "optimize" else ()
    options = ("--method", method, "--keep-colors", keep, *QUICK, *steps)
    imgops("style", place / "gray.png", style, "-o", place / "out.png", *options)
    assert Image.open(place / "out.png").mode == mode
    # without being asked it gets the style's colors
    if keep == "luma" and mode == "L":
        imgops("style", place / "gray.png", style, "-o", place / "two.png", "--method", method, *QUICK, *steps)
        assert Image.open(place / "two.png").mode == "RGB"


def test_a_stopped_transfer_keeps_colors_and_masks():
    torch.manual_seed(0)
    content, style = torch.rand(1, 32, 48).expand(3, -1, -1), torch.rand(3, 32, 32)
    chosen = OptimizeSettings(first_size=48, steps=20)
    transfer = Transfer(TransferSettings(weights="embedded", size=48, keep_colors="luma", optimize=chosen))
    mask = (torch.arange(48) < 24).float().expand(1, 32, 48)
    seen = []
    result = transfer(content, [style], masks=[mask], on_step=lambda p: seen.append(p) or len(seen) == 2)
    assert len(seen) == 2
    assert torch.equal(result[0], result[2])
    torch.testing.assert_close(result[..., 24:], content[..., 24:], rtol=0, atol=2e-3)
    assert (result[..., :24] - content[..., :24]).abs().mean() > 0.01


@pytest.mark.parametrize("style", [None, "sea.png", "samples:hubble"])
def test_weights_of_fast_are_the_network(place, style):
    styles = () if style is None else (style if ":" in style else place / style,)
    arguments = ("style", place / "cat.png", *styles, "-o", place / "out.png", *QUICK)
    _, stderr = imgops(*arguments, "--method", "fast", "--weights", place / "net.safetensors")
    imgops("style", place / "cat.png", place / "net.safetensors", "--method", "fast", "-o", place / "two.png", *QUICK)
    assert torch.equal(read_picture(place / "out.png").pixels, read_picture(place / "two.png").pixels)
    told = "is not looked at: with the method fast the network of --weights is the style"
    assert stderr == (f"imgops: warning: {styles[0]} {told}\n" if styles else "")


def test_what_is_no_network_or_missing_is_named(place):
    common = ("style", place / "cat.png", "-o", place / "out.png", "--method")
    safetensors.torch.save_file(VGG((1,), widths=(2,)).state_dict(), place / "vgg.safetensors")
    assert "no known layout of weights (fast_neural_style)" in error(
        *common, "fast", "--weights", place / "vgg.safetensors"
    )
    assert "STYLES is missing: a network" in error(*common, "fast")
    assert "STYLES is missing: a picture or samples:NAME" in error(*common, "adain")
    assert "(see imgops style --help)" in error(*common, "optimize", "--weights", "default")
    message = error(*common, "fast", place / "sea.png", "--weights", place / "vgg.safetensors")
    assert "sea.png: the method fast takes the network of a style" in message
    message = error(*common, "adain", place / "sea.png", "--weights", place / "vgg.safetensors")
    assert message.startswith(f"imgops: error: --weights {place / 'vgg.safetensors'}: the decoder that ships is of the")
    assert f"imgops style train-adain --weights {place / 'vgg.safetensors'}" in message


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ("style", "sea.png", *STEPS, "--seed", "3"),
            "--seed does nothing without --init noise or --style-loss sliced",
        ),
        (("style", "hubble", "--method", "fast", "--preset", "bold"), "--preset does nothing with the method fast"),
        (("style", "sea.png", *STEPS, "--quality", "80"), "--quality does nothing as only JPEG has one"),
        (("style", "sea.png", "--method", "adain", "--init", "noise"), "--init does nothing with the method adain"),
        (
            ("style", "hubble", "--method", "fast", "--preprocessing", "caffe"),
            "--preprocessing does nothing with the me",
        ),
        (("dream", *DREAM, "--quality", "80"), "--quality does nothing as only JPEG has one"),
    ],
)
def test_what_does_nothing_is_told(place, command, told):
    name, *rest = (place / part if part == "sea.png" else part for part in command)
    _, stderr = imgops(name, place / "cat.png", *rest, "-o", place / "out.png", *QUICK)
    assert told in stderr
    assert stderr.count("\n") == 1


def test_the_seed_of_sliced_is_looked_at(place):
    made = place / "out.png"
    command = ("style", place / "cat.png", place / "sea.png", *STEPS, "--style-loss", "sliced", "--seed", "3")
    assert imgops(*command, "-o", made, *QUICK)[1] == ""


@pytest.mark.parametrize("init", ["noise", "style"])
def test_every_init_finds_the_content(init):
    content, style = (resize_picture(read_picture(f"samples:{name}").pixels, 72) for name in ("chelsea", "coffee"))
    chosen = OptimizeSettings(init=init, first_size=72)
    transfer = Transfer(TransferSettings(weights="embedded", size=72, optimize=chosen))
    found = transfer(content, [style])

    def structure(picture):
        gray = picture.mean(0)[None, None]
        return (F.avg_pool2d(gray, 3, 1, 1) - F.avg_pool2d(gray, 21, 1, 10)).flatten()

    assert torch.corrcoef(torch.stack([structure(found), structure(content)]))[0, 1] > 0.7


def test_memory_that_is_not_there_is_told_before_the_work(place, monkeypatch):
    common = ("style", place / "cat.png", "-o", place / "out.png", "--size", "40000", "--device", "cpu")
    embedded = ("--weights", "embedded")
    for method in ("optimize", "adain"):
        message = error(*common, place / "sea.png", "--method", method, *embedded)
        assert "40000 x 26667 pixels take about" in message
        assert "GB; give a smaller --size" in message
    assert "pixels take about" in error(*common, "hubble", "--method", "fast")
    # what fits in tiles says so
    monkeypatch.setattr(planning, "program_memory", lambda device: 450e6)
    monkeypatch.setattr(planning, "room_on", lambda device: 1.5e9)
    arguments = (place / "cat.png", place / "sea.png", "-o", place / "out.png", "--size", "2000", *embedded)
    message = error("style", *arguments)
    assert "GB, which makes tiles, or a smaller --size" in message
    assert not (place / "out.png").exists()


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")])
def test_memory_that_runs_out_leaves_the_last_round(place, monkeypatch, failure):
    compute = Objective.gradient

    def gradient(self, picture):
        if max(picture.shape[1:]) > 48 and picture.shape[1] != 64:
            raise failure
        return compute(self, picture)

    monkeypatch.setattr(Objective, "gradient", gradient)
    arguments = ("style", place / "cat.png", place / "sea.png", "-o", place / "out.png", "--device", "cpu")
    steps = ("--steps", "2", "--later-steps", "1", "--keep-colors", "luma", "--weights", "embedded")
    monkeypatch.setattr(PreparedTransfer, "plan", lambda self, content: (self.optimize, 1.0, 1.0))
    message = imgops(*arguments, *steps, "--first-size", "48", "--size", "60", code=2)[1]
    assert "out.png is of 48 x 32 pixels only: at the next size memory ran out; give --memory" in message
    assert Image.open(place / "out.png").size == (48, 32)
    (place / "out.png").unlink()
    message = imgops(*arguments, *steps, "--first-size", "60", "--size", "60", code=2)[1]
    assert message.startswith("imgops: error: memory ran out; give --memory")
    assert not (place / "out.png").exists()


@pytest.mark.parametrize("method", ["adain", "fast"])
@pytest.mark.parametrize("color", [1.0, 0.5])
def test_a_flat_picture_stays_flat_to_its_edge(method, color):
    style = read_picture("samples:coffee").pixels
    for memory in (None, 1e12):
        transfer = Transfer(TransferSettings(method=method, size=75, memory=memory), ["hubble"])
        result = transfer(torch.full((3, 61, 75), color), [] if method == "fast" else [style])
        assert (result - result[:, 30:31, 37:38]).abs().max() < 0.01


_MEASURED = """
import sys
from imgops._memory import peak_memory
from imgops.data import read_picture, resize_picture
from imgops.style import OptimizeSettings, Transfer, TransferSettings, planning

settings = OptimizeSettings(size=512, first_size=512, steps=2, tile=256, style_loss="wasserstein")
transfer = Transfer(TransferSettings(weights="embedded", size=512, optimize=settings))
content = resize_picture(read_picture("samples:chelsea").pixels, 512)
print(planning.memory_of(transfer.encoder, settings, *content.shape[1:]))
transfer(content, [read_picture("samples:hubble").pixels])
print(peak_memory())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_tiles_take_the_memory_that_was_announced():
    done = subprocess.run([sys.executable, "-c", _MEASURED], capture_output=True, text=True, check=True)
    announced, peak = map(float, done.stdout.split())
    assert 0.85 * peak < announced < 1.15 * peak


@pytest.mark.parametrize(("style", "color", "tile"), [("hubble", 1.0, None), ("coffee", 0.5, 48)])
def test_the_pattern_on_a_flat_picture_draws_no_frame(style, color, tile):
    """Its colors in the four pixels along the border are those of the middle."""
    chosen = TransferSettings(weights="embedded", size=72, optimize=OptimizeSettings(steps=50, tile=tile))
    result = Transfer(chosen)(torch.full((3, 64, 72), color), [read_picture(f"samples:{style}").pixels])
    middle = result[:, 12:-12, 12:-12]
    assert middle.std() > 0.03
    border = torch.ones(64, 72, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert (result[:, border].mean(1) - middle.mean((1, 2))).abs().max() < 0.03


def test_rows_and_columns_that_are_even_begin_with_noise():
    """Of no more than rounding hides: else only the borders tell places apart. The rest is as it was."""
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)
    for even in (ramp.expand(3, 48, 64), ramp.flip(0)[None, :, None].expand(3, 64, 48), torch.ones(3, 48, 64)):
        start = _start("content", even, [], torch.Generator())
        assert 0 < (start - even).abs().max() <= 0.5 / 255
    uneven = torch.rand(3, 48, 64)
    assert torch.equal(_start("content", uneven, [], torch.Generator()), uneven)


def test_tiles_of_a_side_give_the_same_picture(place):
    common = ("style", place / "cat.png", place / "sea.png", "--size", "160", "--first-size", "160", "--steps", "3")
    common += ("--weights", "embedded")
    whole = imgops(*common, "-o", place / "whole.png")[0]
    tiled = imgops(*common, "--tile", "64", "-o", place / "tiled.png")[0]
    assert "in tiles" not in whole
    assert ", in tiles of 64 pixels: about" in tiled
    a, b = (np.asarray(Image.open(place / name)).astype(int) for name in ("whole.png", "tiled.png"))
    assert a.shape == b.shape == (107, 160, 3)
    assert np.abs(a - b).max() <= 1
    # the smaller of what the memory and the side allow
    both = imgops(*common, "--tile", "64", "--memory", "4GB", "-o", place / "both.png")[0]
    assert ", in tiles of 64 pixels: about" in both
    assert "tile must be" in error(*common, "--tile", "0", "-o", place / "no.png")
    _, said = imgops(*common[:5], "--tile", "64", "--method", "adain", "-o", place / "idle.png")
    assert "--tile does nothing with the method adain" in said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(("size", "more"), [(640, 0.55), (1024, 0.45)])
def test_a_command_stays_within_the_memory_that_it_is_given(tmp_path, size, more):
    """``more``: GB beyond what the program takes with its network, which differs between builds of PyTorch."""
    loaded = (
        "from imgops._memory import resident_memory; from imgops.style import Transfer, TransferSettings; "
        "Transfer(TransferSettings(weights='embedded')); print(resident_memory())"
    )
    program = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    memory = int(program) / 1e9 + more
    style = [sys.executable, "-m", "imgops", "style", "samples:chelsea", "samples:coffee", "-o", tmp_path / "out.png"]
    short = ["--first-size", size // 2, "--steps", 1, "--later-steps", 1, "--device", "cpu"]
    short += ["--weights", "embedded"]
    command = [*style, "--size", size, "--memory", f"{memory:.2f}GB", *short]
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    announced, peak = (float(re.search(pattern, said)[1]) for pattern in (r"and (\S+) GB", r"peak memory (\S+) GB"))
    assert peak < 1.05 * memory
    assert 0.85 * peak - 0.05 < announced < 1.15 * peak + 0.05


@pytest.mark.parametrize("options", [("--content-weight", "1e300"), ("--lr", "1e38", "--optimizer", "lbfgs")])
def test_losses_that_are_not_finite_are_told(place, options):
    common = ("style", place / "cat.png", place / "sea.png", "--size", "48", "--steps", "4", "-o", place / "black.png")
    common += ("--weights", "embedded")
    assert "losses are not finite" in imgops(*common, *options, code=2)[1]
    assert not (place / "black.png").exists()


@pytest.mark.parametrize("weights", ["3,1", "0", "nan", "-1"])
def test_weights_of_styles_are_named_by_their_option(place, weights):
    line = error("style", place / "cat.png", place / "sea.png", "--style-weights", weights, "-o", place / "none.png")
    assert line.startswith("imgops: error: --style-weights must")
