"""What is hidden of a picture is no part of it: whatever a file holds there, every result is the same."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from imgops.data import fill_hidden, match_covariance, match_histogram
from imgops.data.datasets.crops import RandomCrops
from imgops.dream import GuidedObjective
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.nn import Features
from imgops.style import FastTraining, train_fast
from imgops.style.adain import normalized, stylize_adain
from tests.test_cli import error, imgops

HIDDEN = {"black": (0, 0, 0), "white": (255, 255, 255), "lime": (0, 255, 0)}
QUICK = ("--size", "48", "--device", "cpu")
STEPS = ("--first-size", "48", "--steps", "2", "--weights", "embedded")
DREAM = ("--steps", "2", "--octaves", "1", "--weights", "embedded")


def cut_out(path, hidden, size=(52, 60), edge=0):
    """A PNG of rough colors, half of it hidden, with an edge of half transparency."""
    height, width = size
    generator = torch.Generator().manual_seed(3)
    colors = F.interpolate(torch.rand(1, 3, 7, 8, generator=generator), size, mode="bilinear")[0]
    pixels = (colors * 255).byte().permute(1, 2, 0).numpy()
    alpha = np.zeros(size, np.uint8)
    alpha[height // 4 :, : width // 2] = 255
    alpha[height // 4 :, width // 2 : width // 2 + edge] = 128
    pixels[alpha == 0] = HIDDEN[hidden]
    Image.fromarray(np.dstack([pixels, alpha])).save(path)
    return path


@pytest.fixture
def place(tmp_path):
    generator = torch.Generator().manual_seed(4)
    photo = F.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (44, 56), mode="bilinear")[0]
    Image.fromarray((photo * 255).byte().permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    Image.fromarray(np.uint8(255 * (np.arange(60) < 45))[None].repeat(52, 0)).save(tmp_path / "mask.png")
    return tmp_path


def of_each_color(place, command):
    """The bytes of the picture that a command makes, for each color of the hidden pixels."""
    made = {}
    for hidden in HIDDEN:
        source, out = cut_out(place / "cut.png", hidden, edge=3), place / f"{hidden}-out.png"
        imgops(*(part.format(cut=source, dir=place) for part in command), "-o", out, *QUICK)
        made[hidden] = np.asarray(Image.open(out))
    return made


NNST = ("--smallest", "24", "--scale-steps", "2", "--final-steps", "1", "--weights", "embedded")
STYLES = {
    "optimize": ("style", "{dir}/photo.png", "{cut}", *STEPS),
    "nnst": ("style", "{dir}/photo.png", "{cut}", "--method", "nnst", *NNST),
    "wasserstein": ("style", "{dir}/photo.png", "{cut}", "--style-loss", "wasserstein", *STEPS),
    "adain": ("style", "{dir}/photo.png", "{cut}", "--method", "adain"),
    "lua": ("style", "{dir}/photo.png", "{cut}", "--method", "adain", "--convention", "lua"),
    "with a mask": ("style", "{dir}/photo.png", "{cut}", "--style-mask", "{dir}/mask.png", "--method", "adain"),
    "two styles": ("style", "{dir}/photo.png", "{cut}", "{dir}/photo.png", *STEPS),
    "init": ("style", "{dir}/photo.png", "{cut}", "--init", "style", *STEPS),
    "coral": ("style", "{dir}/photo.png", "{cut}", "--keep-colors", "coral", "--method", "adain"),
    "histogram": ("style", "{dir}/photo.png", "{cut}", "--keep-colors", "histogram", "--method", "adain"),
    "guide": ("dream", "{dir}/photo.png", "--guide", "{cut}", *DREAM),
}
CONTENTS = {
    "optimize": ("style", "{cut}", "{dir}/photo.png", *STEPS),
    "nnst": ("style", "{cut}", "{dir}/photo.png", "--method", "nnst", *NNST),
    "adain": ("style", "{cut}", "{dir}/photo.png", "--method", "adain"),
    "fast": ("style", "{cut}", "hubble", "--method", "fast"),
    "luma": ("style", "{cut}", "{dir}/photo.png", "--keep-colors", "luma", "--method", "adain"),
    "coral": ("style", "{cut}", "{dir}/photo.png", "--keep-colors", "coral", "--method", "adain"),
    "histogram": ("style", "{cut}", "hubble", "--keep-colors", "histogram", "--method", "fast"),
    "dream": ("dream", "{cut}", *DREAM),
}


@pytest.mark.parametrize("command", STYLES.values(), ids=STYLES)
def test_hidden_pixels_of_a_style_or_guide_change_nothing(place, command):
    made = of_each_color(place, command)
    assert (made["black"] == made["white"]).all()
    assert (made["black"] == made["lime"]).all()


@pytest.mark.parametrize("command", CONTENTS.values(), ids=CONTENTS)
def test_hidden_pixels_of_a_content_change_nothing_and_alpha_is_kept(place, command):
    made = of_each_color(place, command)
    assert (made["black"] == made["white"]).all()
    assert (made["black"] == made["lime"]).all()
    alpha = np.asarray(Image.open(place / "cut.png").resize((48, 42), Image.Resampling.BICUBIC))[..., 3]
    assert made["black"].shape == (42, 48, 4)
    assert np.abs(made["black"][..., 3].astype(int) - alpha).max() < 40


@pytest.mark.parametrize("method", ["optimize", "adain"])
@pytest.mark.parametrize("option", ["style", "guide", "train"])
def test_what_is_transparent_all_over_is_refused_by_name(place, method, option):
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(place / "nothing.png")
    command = {
        "style": ("style", place / "photo.png", place / "nothing.png", "--method", method),
        "guide": ("dream", place / "photo.png", "--guide", place / "nothing.png"),
        "train": ("style", "train-fast", place / "nothing.png"),
    }[option]
    message = error(*command, "-o", place / ("out.safetensors" if option == "train" else "out.png"))
    assert "nothing.png: is transparent all over" in message


def test_a_mask_of_what_is_hidden_is_refused(place):
    Image.fromarray(np.uint8(255 * (np.arange(60) > 45))[None].repeat(52, 0)).save(place / "mask.png")
    source = cut_out(place / "cut.png", "lime")
    message = error("style", place / "photo.png", source, "--style-mask", place / "mask.png", "-o", place / "o.png")
    assert "mask.png: leaves nothing of what" in message
    assert "cut.png shows" in message


def test_trainings_do_not_see_what_is_hidden(place):
    data, states, crops = place / "data", set(), set()
    data.mkdir()
    encoder = VGG((1, 1), widths=(4, 6))
    settings = FastTraining(size=16, batch=1, steps=2, widths=(2, 3, 4), blocks=1, style_layers=("relu1_1",))
    for hidden in HIDDEN:
        cut_out(data / "cut.png", hidden)
        crops.add(hashlib.sha256(RandomCrops(data, 16)[0].numpy().tobytes()).hexdigest())
        # a style by its visible half, whose statistics have nothing of the rest
        style = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
        style[:, :, 16:] = torch.tensor(HIDDEN[hidden])[:, None, None] / 255
        mask = (torch.arange(32) < 15).float().expand(1, 32, 32)
        network = train_fast(style, data, place / f"{hidden}.safetensors", encoder, settings, style_mask=mask)
        states.add(hashlib.sha256(b"".join(v.numpy().tobytes() for v in network.state_dict().values())).hexdigest())
    assert len(crops) == len(states) == 1


def test_filled_pixels_have_the_colors_around():
    color = torch.tensor([0.2, 0.9, 0.4])[:, None, None]
    pixels, alpha = color.expand(3, 37, 50).clone(), torch.ones(1, 37, 50)
    alpha[:, 3:30, 8:47] = 0
    pixels[:, 3:30, 8:47] = 1.0
    torch.testing.assert_close(fill_hidden(pixels, alpha), color.expand(3, 37, 50))
    # each side has its own
    pixels, alpha = torch.rand(3, 20, 40), torch.zeros(1, 20, 40)
    alpha[..., :10] = 0.5
    alpha[..., -10:] = 1
    pixels[..., :10], pixels[..., -10:] = 0.1, 0.8
    filled = fill_hidden(pixels, alpha)
    assert torch.equal(filled[..., :10], pixels[..., :10])
    assert (filled[..., 10:14] < 0.4).all()
    assert (filled[..., 26:30] > 0.5).all()
    assert torch.equal(fill_hidden(pixels, torch.zeros(1, 20, 40)), torch.full((3, 20, 40), 0.5))
    assert fill_hidden(pixels, None) is pixels
    with pytest.raises(ValueError, match=r"alpha must be \(1, 20, 40\) as the picture; got \(1, 3, 3\)"):
        fill_hidden(pixels, torch.ones(1, 3, 3))


@pytest.mark.parametrize("convention", ["pytorch", "lua"])
def test_masked_features_have_the_statistics_of_what_is_left(convention):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 5, 6, n, generator=generator, dtype=torch.float64) for n in (7, 10))
    half = (torch.arange(10) < 4).double().expand(1, 1, 6, 10)
    torch.testing.assert_close(normalized(x, y, convention, half), normalized(x, y[..., :4], convention))
    torch.testing.assert_close(normalized(x, y, convention, 0.3 * half), normalized(x, y[..., :4], convention))
    torch.testing.assert_close(normalized(x, y, convention, torch.ones(1, 1, 6, 10)), normalized(x, y, convention))


def test_a_style_mask_of_adain_is_that_of_its_features():
    torch.manual_seed(0)
    encoder = VGG((1, 1), widths=(4, 6), padding_mode="replicate").double()
    decoder = AdaINDecoder((1,), widths=(4, 6)).double()
    content, style = torch.rand(3, 20, 24).double(), torch.rand(3, 24, 32).double()
    mask = (torch.arange(32) < 15).double().expand(1, 24, 32)
    x, y = (Features(encoder, ["relu2_1"])(picture[None])["relu2_1"] for picture in (content, style))
    expected = decoder(normalized(x, y, style_mask=F.avg_pool2d(mask[None], 2)))[0].clamp(0, 1)
    masked = stylize_adain(content, [style], encoder, decoder, style_masks=[mask])
    torch.testing.assert_close(masked, expected)
    assert (masked - stylize_adain(content, [style], encoder, decoder)).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"style mask 1 must be \(1, 24, 32\) as the style is, >= 0 and not 0"):
        stylize_adain(content, [style], encoder, decoder, style_masks=[0 * mask])
    with pytest.raises(ValueError, match="style_masks must be one for each of 1 styles; got 2"):
        stylize_adain(content, [style], encoder, decoder, style_masks=[mask, None])


@pytest.mark.parametrize("match", [match_covariance, match_histogram])
def test_colors_are_matched_by_what_counts(match):
    generator = torch.Generator().manual_seed(0)
    picture, target = (torch.rand(3, 12, n, generator=generator, dtype=torch.float64) for n in (10, 14))
    ours, theirs = (torch.arange(n) < 6 for n in (10, 14))
    weights, others = ours.double().expand(1, 12, 10), theirs.double().expand(1, 12, 14)
    matched = match(picture, target, weights, 0.5 * others)
    torch.testing.assert_close(matched[..., :6], match(picture[..., :6], target[..., :6]))
    with pytest.raises(ValueError, match=r"target_weights must be \(1, 12, 14\) as the picture"):
        match(picture, target, None, weights)


def test_hidden_places_are_no_guide():
    guide = torch.rand(3, 16, 16)
    mask = (torch.arange(16) < 8).float().expand(1, 16, 16)
    of = lambda x: {"a": x}  # noqa: E731
    density = GuidedObjective("a", guide, mask=mask).bound(of)
    expected = GuidedObjective("a", guide[:, :, :8]).bound(of)
    y = torch.randn(1, 3, 5, 5)
    torch.testing.assert_close(density(y), expected(y))
    with pytest.raises(ValueError, match=r"mask must be \[1, 16, 16\] as the guide is, and not 0 all over"):
        GuidedObjective("a", guide, mask=0 * mask)
