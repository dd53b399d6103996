"""AdaIN of whole pictures: its formulas, mixtures, masks, and tiles that change nothing."""

from __future__ import annotations

import doctest

import pytest
import torch
import torch.nn.functional as F

import imgops
import imgops.style.adain
from imgops.models.encoders.vgg import VGG
from imgops.models.style.adain_decoder import AdaINDecoder
from imgops.nn import Features
from imgops.style.adain import matched, normalized, stylize_adain

WIDTHS = (3, 4, 5, 6)


def networks(depth=(1, 2, 1, 1), **options):
    torch.manual_seed(0)
    encoder = VGG(depth, widths=WIDTHS, **options).double().eval().requires_grad_(False)
    decoder = AdaINDecoder(depth, widths=WIDTHS).double().eval().requires_grad_(False)
    decoder.conv1_1.weight.mul_(5)
    decoder.conv1_1.bias.fill_(0.5)
    return encoder, decoder


ENCODER, DECODER = networks()
CEIL = networks(padding_mode="reflect", ceil_mode=True)
CONTENT, STYLE, OTHER = (torch.rand(3, *size, dtype=torch.float64) for size in ((40, 56), (32, 48), (64, 24)))


def features(picture, encoder=ENCODER):
    return Features(encoder, ["relu4_1"])(picture[None])["relu4_1"]


def decoded(x, decoder=DECODER):
    return decoder(x)[0].clamp(0, 1)


def plain(content, style):
    """Huang and Belongie 2017, eq. 8, with the variances of the PyTorch port."""
    mean, std = style.mean((2, 3), keepdim=True), (style.var((2, 3), keepdim=True) + 1e-5).sqrt()
    own_mean, own_std = content.mean((2, 3), keepdim=True), (content.var((2, 3), keepdim=True) + 1e-5).sqrt()
    return std * (content - own_mean) / own_std + mean


def test_conventions_are_their_formulas():
    content, style = torch.randn(2, 5, 4, 6, dtype=torch.float64), 2 + torch.randn(1, 5, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(normalized(content, style), plain(content, style))
    biased = content.var((2, 3), unbiased=False, keepdim=True)
    whitened = (content - content.mean((2, 3), keepdim=True)) / (biased + 1e-5).sqrt()
    expected = style.std((2, 3), keepdim=True) * whitened + style.mean((2, 3), keepdim=True)
    torch.testing.assert_close(normalized(content, style, "lua"), expected)
    assert not torch.allclose(normalized(content, style, "lua"), normalized(content, style))


def test_another_layer():
    """A decoder of fewer blocks starts from a layer before."""
    torch.manual_seed(1)
    decoder = AdaINDecoder((1, 2), widths=WIDTHS[:3]).double().eval().requires_grad_(False)
    decoder.conv1_1.bias.fill_(0.5)
    x, s = (Features(ENCODER, ["relu3_1"])(picture[None])["relu3_1"] for picture in (CONTENT, STYLE))
    expected = decoder(plain(x, s))[0].clamp(0, 1)
    torch.testing.assert_close(stylize_adain(CONTENT, [STYLE], ENCODER, decoder), expected)
    torch.testing.assert_close(stylize_adain(CONTENT, [STYLE], ENCODER, decoder, tile=16), expected)


def test_one_style():
    x, s = features(CONTENT), features(STYLE)
    torch.testing.assert_close(stylize_adain(CONTENT, [STYLE], ENCODER, DECODER), decoded(plain(x, s)))
    lua = stylize_adain(CONTENT, [STYLE], ENCODER, DECODER, convention="lua")
    torch.testing.assert_close(lua, decoded(normalized(x, s, "lua")))


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_mixtures(alpha):
    x = features(CONTENT)
    first, second = (plain(x, features(style)) for style in (STYLE, OTHER))
    output = stylize_adain(CONTENT, [STYLE, OTHER], ENCODER, DECODER, alpha=alpha, weights=[3, 1])
    torch.testing.assert_close(output, decoded((1 - alpha) * x + alpha * (0.75 * first + 0.25 * second)))
    # by themselves they weigh the same
    output = stylize_adain(CONTENT, [STYLE, OTHER], ENCODER, DECODER, alpha=alpha)
    torch.testing.assert_close(output, decoded((1 - alpha) * x + alpha * (first + second) / 2))


def test_masks_say_where():
    x = features(CONTENT)
    first, second = (plain(x, features(style)) for style in (STYLE, OTHER))
    # the left for one, the top for the other; both at the top left, none at the bottom right
    left, top = torch.zeros(1, 40, 56), torch.zeros(1, 40, 56)
    left[..., :20], top[:, :16] = 1, 0.5
    output = stylize_adain(CONTENT, [STYLE, OTHER], ENCODER, DECODER, masks=[left, top], weights=[1, 2])
    a, b = (F.avg_pool2d(mask[None].double(), 8) for mask in (left, top))
    # 20 pixels are two features and a half
    assert a[0, 0, 0].tolist() == [1, 1, 0.5, 0, 0, 0, 0]
    share = (a + b).clamp(max=1) / (a + 2 * b).clamp(min=1e-9)
    mixed = share * (a * first + 2 * b * second) + (1 - (a + b).clamp(max=1)) * x
    torch.testing.assert_close(output, decoded(mixed))
    everywhere = [torch.ones(1, 40, 56)]
    torch.testing.assert_close(
        stylize_adain(CONTENT, [STYLE], ENCODER, DECODER, masks=everywhere),
        stylize_adain(CONTENT, [STYLE], ENCODER, DECODER),
    )


@pytest.mark.parametrize("pair", [(ENCODER, DECODER), CEIL], ids=["floor", "ceil"])
@pytest.mark.parametrize("size", [(16, 17), (39, 57), (41, 63)])
def test_any_size_is_kept(pair, size):
    content = torch.rand(3, *size, dtype=torch.float64)
    output = stylize_adain(content, [STYLE[:, :17, :23]], *pair, masks=[torch.rand(1, *size)])
    assert output.shape == content.shape
    assert output.std() > 0.01


def test_pools_that_round_up_see_the_picture_as_it_is():
    encoder, decoder = CEIL
    content = torch.rand(3, 35, 41, dtype=torch.float64)
    x = plain(features(content, encoder), features(STYLE, encoder))
    assert x.shape[2:] == (5, 6)
    torch.testing.assert_close(stylize_adain(content, [STYLE], *CEIL), decoder(x, (35, 41))[0].clamp(0, 1))


@pytest.mark.parametrize("size", [(160, 208), (163, 201)])
@pytest.mark.parametrize("pair", [networks((2, 2, 2, 1)), networks((1, 1, 3, 1), ceil_mode=True)], ids=["2", "ceil"])
def test_tiles_change_nothing(pair, size):
    content, style = torch.rand(3, *size, dtype=torch.float64), torch.rand(3, 90, 100, dtype=torch.float64)
    masks = [torch.rand(1, *size), torch.rand(1, *size)]
    options = {"masks": masks, "alpha": 0.8}
    whole = stylize_adain(content, [style, STYLE], *pair, **options)
    assert whole.std() > 0.01
    for tile in (48, 70):
        tiled = stylize_adain(content, [style, STYLE], *pair, tile=tile, **options)
        torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-10)


def test_the_result_is_of_the_contents_kind():
    encoder, decoder = (network.float() for network in networks())
    output = stylize_adain(CONTENT, [STYLE.float()], encoder, decoder)
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, stylize_adain(CONTENT, [STYLE], ENCODER, DECODER), rtol=1e-4, atol=1e-5)


def test_efdm_takes_the_style_s_values():
    """Whole, in part, mixed, and in tiles; features of one size get exactly the style's."""
    x, y, z = (features(picture) for picture in (CONTENT, STYLE, OTHER))
    torch.testing.assert_close(
        stylize_adain(CONTENT, [STYLE], ENCODER, DECODER, statistics="efdm"), decoded(imgops.efdm(x, y))
    )
    same = features(torch.rand_like(CONTENT))
    torch.testing.assert_close(matched(x, same).flatten(2).sort(-1).values, same.flatten(2).sort(-1).values)
    half = stylize_adain(CONTENT, [STYLE], ENCODER, DECODER, statistics="efdm", alpha=0.4)
    torch.testing.assert_close(half, decoded(imgops.efdm(x, y, alpha=0.4)))
    arguments = {"weights": [3, 1], "statistics": "efdm"}
    mixed = stylize_adain(CONTENT, [STYLE, OTHER], ENCODER, DECODER, **arguments)
    torch.testing.assert_close(mixed, decoded(0.75 * imgops.efdm(x, y) + 0.25 * imgops.efdm(x, z)))
    # tiles smaller than the picture
    torch.testing.assert_close(stylize_adain(CONTENT, [STYLE, OTHER], ENCODER, DECODER, tile=16, **arguments), mixed)


def test_a_mask_counts_values_as_often_as_it_says():
    """A mask of ones and zeros is a crop; one of a single weight is none; doubled values count twice."""
    x, y = torch.randn(2, 1, 3, 6, 8, dtype=torch.float64)
    mask = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    mask[..., :5] = 0.5
    torch.testing.assert_close(matched(x, y, mask), matched(x, y[..., :5]))
    torch.testing.assert_close(matched(x, y, torch.full_like(mask, 0.2)), matched(x, y))
    mask[..., 1:] = 0
    mask[..., :1, 0] = 0.7
    one = matched(x, y, mask * (torch.arange(6)[:, None] == 0))
    torch.testing.assert_close(one, y[..., :1, :1].expand_as(x))
    # a weight moves the median, and no value leaves the range
    heavy = torch.where(y[:, :1] > 0, 3.0, 1.0)
    weighted = matched(x, y, heavy)[0, 0]
    assert weighted.median() > matched(x, y)[0, 0].median()
    assert y[0, 0].min() <= weighted.min()
    assert weighted.max() <= y[0, 0].max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"styles": []}, "styles must have one picture at least"),
        ({"content": CONTENT[:, :15]}, r"the content must be RGB \[3, H, W\] of at least 16 x 16 pixels; got \(3, 15"),
        ({"styles": [STYLE, STYLE[:1]]}, r"the style 2 must be RGB"),
        ({"alpha": 1.5}, "alpha must be 0 to 1; got 1.5"),
        ({"weights": [1, 2]}, r"weights must be 1 numbers >= 0, not all 0; got \[1, 2\]"),
        ({"weights": [0]}, "weights must be 1 numbers"),
        ({"masks": []}, "masks must be one for each of 1 styles; got 0"),
        ({"masks": [torch.ones(1, 40, 40)]}, r"mask 1 must be \(1, 40, 56\) as the content is; got \(1, 40, 40\)"),
        ({"masks": [torch.full((1, 40, 56), 2.0)]}, r"mask 1 must be in \[0, 1\]"),
        ({"convention": "tf"}, "convention must be one of pytorch, lua; got 'tf'"),
        ({"statistics": "sums"}, "statistics must be one of moments, efdm; got 'sums'"),
        (
            {"statistics": "efdm", "convention": "lua"},
            "convention must be 'pytorch' where statistics is 'efdm'",
        ),
        ({"tile": 7}, "tile must be >= 8"),
        (
            {"decoder": AdaINDecoder((1, 1, 1), widths=(3, 4, 5, 7))},
            "the encoder has 6 channels at relu4_1, .*; the decoder takes 7, .*give the decoder of this encoder",
        ),
        ({"encoder": VGG((1, 1), widths=(2, 2))}, "no layer 'relu4_1'"),
    ],
)
def test_bad_input(change, message):
    arguments = {"content": CONTENT, "styles": [STYLE], "encoder": ENCODER.double(), "decoder": DECODER} | change
    encoder, decoder = arguments["encoder"].double(), arguments["decoder"].double()
    with pytest.raises(ValueError, match=message):
        stylize_adain(**arguments | {"encoder": encoder, "decoder": decoder})


def test_examples_run():
    failed, tried = doctest.testmod(imgops.style.adain, extraglobs={"torch": torch})
    assert (failed, tried) == (0, 2)
