"""Neural neighbor style transfer: the nearest parts, tiles, masks, mixtures, frames, and what the command says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from imgops.data import write_picture
from imgops.models.encoders import load_encoder
from imgops.models.encoders.efficientnet_lite import EfficientNetLite
from imgops.style import NNSTSettings, OptimizeSettings, Transfer, TransferSettings, stylize_frames, stylize_nnst
from imgops.style.hypercolumns import GRID, Hypercolumns
from imgops.style.neighbor_objective import NeighborObjective, hypercolumn_layers
from imgops.style.nnst import _built, _pyramid
from tests.style.test_optimization import picture
from tests.test_cli import error, imgops

QUICK = NNSTSettings(size=64, smallest=32, scale_steps=3, final_steps=2)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("embedded", padding_mode="replicate", frame=False)


def photo(seed: int, height: int, width: int) -> torch.Tensor:
    return picture(seed, height, width).float()


def objective(encoder, styles, settings=QUICK, weights=(1.0,), parts=(None,), regions=None):
    return NeighborObjective(encoder, settings, styles, weights, parts, regions)


@pytest.mark.parametrize("size", [(48, 64), (50, 61)], ids=str)
def test_hypercolumns_of_tiles_are_those_of_the_whole(encoder, size):
    layers = hypercolumn_layers(encoder, QUICK)
    whole, tiled = (Hypercolumns(encoder, layers, tile) for tile in (None, 16))
    style = photo(2, 40, 52)
    for a, b in zip(whole.fit([style]), tiled.fit([style]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    x = photo(1, *size)
    assert whole(x).shape[1:] == (-(-size[0] // GRID), -(-size[1] // GRID))
    torch.testing.assert_close(whole(x), tiled(x), rtol=1e-4, atol=1e-4)


def test_the_hypercolumns_of_the_styles_are_measured_by_their_own_mean_and_length(encoder):
    columns = Hypercolumns(encoder, {"relu1_1": 1.0, "relu3_1": 4.0}, None)
    (y,) = columns.fit([photo(2, 40, 52)])
    assert y.mean((1, 2)).abs().max() < 1e-5
    lengths = [float(part.square().sum(0).mean()) for part in y.split(columns.sizes)]
    assert lengths == pytest.approx([1.0, 4.0], rel=1e-4)


def test_the_style_itself_is_its_own_nearest(encoder):
    style = photo(2, 48, 48)
    near = objective(encoder, [style])
    near.match(style, style, 0.5)
    losses, gradient = near.gradient(style, anew=False)
    assert losses["distance"] < 1e-5
    assert near.gradient(style, anew=True)[0]["distance"] < 1e-5
    assert near.gradient(photo(1, 48, 48), anew=True)[0]["distance"] > 0.01
    assert gradient.shape == style.shape


@pytest.mark.parametrize("anew", [False, True])
def test_the_gradient_is_that_of_the_distance_in_tiles_as_well(encoder, anew):
    """By a difference in float64, along a random direction."""
    network = load_encoder("embedded", padding_mode="replicate", frame=False).double()
    # of noise, as no ReLU of it is at 0, where its slope jumps
    noise = torch.Generator().manual_seed(0)
    style, x, direction = (torch.rand(3, h, 40, generator=noise, dtype=torch.float64) for h in (40, 48, 48))
    gradients = []
    for tile in (None, 16):
        near = objective(network, [style], dataclasses.replace(QUICK, tile=tile))
        near.match(x, x, 1.0)
        gradients.append(near.gradient(x, anew)[1])
        step = 1e-6
        ahead, behind = (near.gradient(x + sign * step * direction, anew)[0]["distance"] for sign in (1, -1))
        assert float((gradients[-1] * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


def test_the_distance_falls_and_the_result_is_the_same_in_tiles(encoder):
    seen = []
    arguments = photo(1, 64, 64), [photo(2, 40, 52)], encoder
    longer = dataclasses.replace(QUICK, scale_steps=12, final_steps=0)
    whole = stylize_nnst(*arguments, longer, on_step=lambda p: seen.append((p.size, p.losses["distance"])) and None)
    assert whole.shape == (3, 64, 64)
    assert [size for size, _ in seen] == [32] * 12 + [64] * 12
    assert seen[11][1] < 0.9 * seen[0][1]
    assert seen[23][1] < 0.9 * seen[12][1]
    tiled = stylize_nnst(*arguments, dataclasses.replace(QUICK, tile=32))
    torch.testing.assert_close(tiled, stylize_nnst(*arguments, QUICK), rtol=0, atol=2e-3)


def test_a_pyramid_is_its_picture():
    x = torch.rand(3, 37, 50)
    levels = _pyramid(x, 3)
    assert [level.shape[1:] for level in levels] == [(37, 50), (19, 25), (10, 13), (5, 7)]
    torch.testing.assert_close(_built(levels), x)


def test_colors_are_those_of_the_style(encoder):
    style = photo(2, 40, 52) * torch.tensor([0.3, 0.9, 0.5])[:, None, None]
    result = stylize_nnst(photo(1, 48, 64), [style], encoder, QUICK)
    torch.testing.assert_close(result.mean((1, 2)), style.mean((1, 2)), rtol=0, atol=0.03)


def test_weights_share_out_the_patches_and_regions_choose_the_style(encoder):
    styles = [photo(2, 32, 32), photo(3, 48, 48)]
    mixed = objective(encoder, styles, weights=(3.0, 1.0), parts=(None, None))
    assert [keys.shape[1] for keys in mixed.keys] == [64 + 22]
    assert objective(encoder, styles, weights=(0.0, 1.0), parts=(None, None)).keys[0].shape[1] == 144
    few = objective(encoder, styles, dataclasses.replace(QUICK, patches=10), (1.0, 1.0), (None, None))
    assert few.keys[0].shape[1] == 10
    turned = objective(encoder, styles[:1], dataclasses.replace(QUICK, rotations=4))
    assert turned.keys[0].shape[1] == 4 * 64
    half = (torch.arange(32) < 16).float().expand(1, 32, 32)
    assert objective(encoder, styles[:1], parts=(half,)).keys[0].shape[1] == 32
    regions = objective(encoder, styles, weights=(1.0, 1.0), parts=(None, None), regions=[half, 1 - half])
    assert regions.regions.tolist() == [[0] * 4 + [1] * 4] * 8
    x = photo(1, 32, 32)
    regions.match(x, x, 1.0)
    for style, columns in enumerate((slice(0, 4), slice(4, 8))):
        found = regions.targets[:, :, columns].flatten(1)
        assert torch.cdist(found.T, regions.keys[style].T).amin(1).max() < 1e-2


def test_what_masks_leave_stays(encoder):
    content = photo(1, 48, 64)
    mask = (torch.arange(64) < 32).float().expand(1, 48, 64)
    result = stylize_nnst(content, [photo(2, 40, 52)], encoder, QUICK, masks=[mask])
    torch.testing.assert_close(result[..., 34:], content[..., 34:], rtol=0, atol=1e-4)
    assert (result[..., :30] - content[..., :30]).abs().mean() > 0.02


def test_a_true_answer_stops_it(encoder):
    seen = []
    result = stylize_nnst(
        photo(1, 64, 64), [photo(2, 40, 52)], encoder, QUICK, on_step=lambda p: seen.append(p) or len(seen) == 2
    )
    assert len(seen) == 2
    assert result.shape == (3, 32, 32)


def test_frames_begin_with_the_last_result():
    nnst = dataclasses.replace(QUICK, size=512)
    settings = TransferSettings(
        method="nnst", weights="embedded", size=40, nnst=nnst, optimize=OptimizeSettings(frame_steps=2)
    )
    transfer, seen = Transfer(settings), []
    frames = [photo(1, 48, 64)] * 2
    first, second = stylize_frames(frames, transfer, [photo(2, 40, 52)])
    torch.testing.assert_close(first, transfer(frames[0], [photo(2, 40, 52)]), rtol=0, atol=1e-5)
    transfer(frames[0], [photo(2, 40, 52)], init=first, on_step=lambda p: seen.append(p) and None)
    assert len(seen) == 2
    assert (first - second).abs().mean() < 0.1


def test_the_command(tmp_path):
    write_picture(tmp_path / "cat.png", torch.rand(3, 40, 60))
    write_picture(tmp_path / "sea.png", torch.rand(3, 48, 48))
    arguments = ("style", tmp_path / "cat.png", tmp_path / "sea.png", "-o", tmp_path / "out.png", "--method", "nnst")
    quick = ("--weights", "embedded", "--size", "48", "--scale-steps", "2", "--final-steps", "1", "--device", "cpu")
    stdout, stderr = imgops(*arguments, *quick, "--tile", "32", "--keep-colors", "luma")
    assert "48 pixels in 1 round, in tiles of 32 pixels: about" in stdout
    assert stderr == ""
    assert Image.open(tmp_path / "out.png").size == (48, 32)
    _, stderr = imgops(*arguments, *quick, "--lr", "0.1")
    assert "--lr does nothing with the method nnst" in stderr
    assert "memory must be at least" in error(*arguments, *quick, "--memory", "1MB")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NNSTSettings(content_share=1.5), r"content_share must be in \[0, 1\]; got 1.5"),
        (lambda: NNSTSettings(rotations=5), "rotations must be"),
        (lambda: NNSTSettings(scale_steps=0), "scale_steps must be"),
        (lambda: hypercolumn_layers(torch.nn.Flatten(), QUICK), "hypercolumn_layers must be named for this network"),
        (lambda: hypercolumn_layers(EfficientNetLite(), NNSTSettings(hypercolumn_layers={})), "must name one layer"),
        (
            lambda: hypercolumn_layers(EfficientNetLite(), NNSTSettings(hypercolumn_layers={"conv_stem": 0.0})),
            "hypercolumn_layers must have weights above 0",
        ),
        (
            lambda: hypercolumn_layers(EfficientNetLite(), NNSTSettings(hypercolumn_layers={"relu1_1": 1.0})),
            "hypercolumn_layers: ",
        ),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_layers_of_an_efficientnet_lite():
    layers = hypercolumn_layers(EfficientNetLite(2), QUICK)
    assert list(layers) == ["conv_stem", "blocks_0", "blocks_2", "blocks_5", "blocks_8", "blocks_12"]
