"""Optical flow: moved and turned pictures are found again, and what appears is seen to."""

from __future__ import annotations

import doctest
import math

import pytest
import torch

import imgops.data.video.flow
from imgops import displace
from imgops.data import occlusion, optical_flow, read_picture, resize_picture, warp

MARGIN = 8


def turned(picture, degrees):
    """(the picture turned clockwise about its center, the flow from the new to the old by the formula)."""
    height, width = picture.shape[1:]
    y = (torch.arange(height) - (height - 1) / 2)[:, None]
    x = torch.arange(width) - (width - 1) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    flow = torch.stack([cos * x + sin * y - x, cos * y - sin * x - y])
    return displace(picture[None], flow[None], padding_mode="reflection")[0], flow


def inside(x, margin=MARGIN):
    return x[..., margin:-margin, margin:-margin]


@pytest.fixture(scope="module")
def photograph():
    return resize_picture(read_picture("samples:astronaut").pixels, 160)


def test_a_move_is_found_and_warped_back(photograph):
    """By (3, -2) pixels: the flow is right to 0.05 pixels in the mean, the warped frame to 1/255."""
    previous, current = photograph[:, 10:138, 10:138], photograph[:, 12:140, 7:135]
    flow = optical_flow(previous, current)
    assert flow.shape == (2, 128, 128)
    assert flow.dtype == torch.float32
    wanted = torch.tensor([-3.0, 2.0])[:, None, None].expand_as(flow)
    assert (inside(flow) - inside(wanted)).norm(dim=0).mean() < 0.05
    assert (inside(warp(previous, flow)) - inside(current)).abs().mean() < 1 / 255
    # the frames differ by much more
    assert (inside(previous) - inside(current)).abs().mean() > 10 / 255


def test_a_turn_is_found_and_warped_back(photograph):
    """By 2 degrees, up to 2.4 pixels at the corners."""
    current, wanted = turned(photograph[:, :128, :128], 2)
    flow = optical_flow(photograph[:, :128, :128], current)
    assert (inside(flow) - inside(wanted)).norm(dim=0).mean() < 0.05
    assert (inside(warp(photograph[:, :128, :128], flow)) - inside(current)).abs().mean() < 1 / 255


def test_large_frames_are_made_small_for_it(photograph):
    """At half the size: still in the pixels of the frame, and right to a quarter of one."""
    previous, current = photograph[:, 10:138, 10:120], photograph[:, 14:142, 4:114]
    flow = optical_flow(previous, current, size=64)
    assert flow.shape == (2, 128, 110)
    wanted = torch.tensor([-6.0, 4.0])[:, None, None].expand_as(flow)
    assert (inside(flow, 16) - inside(wanted, 16)).norm(dim=0).mean() < 0.25


def test_warp_is_the_formula():
    """Whole pixels: out(p) = picture(p + flow(p)), by indexing; any number of channels."""
    picture = torch.rand(5, 9, 11, dtype=torch.float64)
    flow = torch.randint(-4, 5, (2, 9, 11))
    columns, rows = flow[0] + torch.arange(11), flow[1] + torch.arange(9)[:, None]
    wanted = picture[:, rows.clamp(0, 8), columns.clamp(0, 10)]
    torch.testing.assert_close(warp(picture, flow.double(), padding_mode="border"), wanted)
    # reflected about the edges: -1 is 0 again, -2 is 1
    mirror = [torch.where(i < 0, -1 - i, torch.where(i >= n, 2 * n - 1 - i, i)) for i, n in ((rows, 9), (columns, 11))]
    torch.testing.assert_close(warp(picture, flow.double()), picture[:, mirror[0], mirror[1]])


def test_occlusion_is_the_formula():
    """Flows of whole pixels, so that the forward flow is read at a pixel."""
    forward = torch.randint(-1, 2, (2, 12, 14)).float()
    backward = torch.randint(-1, 2, (2, 12, 14)).float()
    mask = occlusion(forward, backward)
    assert mask.dtype == torch.bool
    wanted = torch.zeros(1, 12, 14, dtype=torch.bool)
    for y in range(12):
        for x in range(14):
            b = backward[:, y, x]
            column, row = x + int(b[0]), y + int(b[1])
            if not (0 <= column < 14 and 0 <= row < 12):
                wanted[0, y, x] = True
                continue
            w = forward[:, row, column]
            wanted[0, y, x] = ((w + b) ** 2).sum() > 0.01 * ((w**2).sum() + (b**2).sum()) + 0.5
    assert torch.equal(mask, wanted)
    assert 0.1 < mask.float().mean() < 0.95


def test_what_a_moving_object_uncovers_is_occluded(photograph):
    """A textured square moves by (8, 0): the strip that it leaves is marked, the rest of the frame is not."""
    square = resize_picture(read_picture("samples:coffee").pixels, 72)[:, :48, :48]
    frames = []
    for left in (40, 48):
        frame = photograph[:, :128, :128].clone()
        frame[:, 40:88, left : left + 48] = square
        frames.append(frame)
    previous, current = frames
    mask = occlusion(optical_flow(current, previous), optical_flow(previous, current))[0]
    uncovered = torch.zeros_like(mask)
    uncovered[40:88, 40:48] = True
    assert mask[uncovered].float().mean() > 0.7
    far = torch.ones_like(mask)
    far[30:98, 30:106] = False
    assert mask[far].float().mean() < 0.02


@pytest.mark.parametrize("size", [(2, 2), (3, 40), (17, 16), (600, 2)])
def test_small_and_narrow_frames(size):
    flow = optical_flow(torch.rand(3, *size), torch.rand(3, *size))
    assert flow.shape == (2, *size)
    assert flow.isfinite().all()
    assert optical_flow(torch.ones(3, *size), torch.ones(3, *size)).eq(0).all()


def test_bad_input():
    x = torch.rand(3, 20, 30)
    for arguments, options, message in (
        ((x[None], x), {}, r"previous must be \[3, H, W\] of at least 2 x 2 pixels; got \(1, 3, 20, 30\)"),
        ((x, x[:, :1]), {}, r"current must be \[3, H, W\] of at least 2 x 2 pixels; got \(3, 1, 30\)"),
        ((x, x[:, :9]), {}, r"previous is \(3, 20, 30\), current \(3, 9, 30\)"),
        ((x, x), {"size": 8}, "size must be >= 16; got 8"),
    ):
        with pytest.raises(ValueError, match=message):
            optical_flow(*arguments, **options)
    with pytest.raises(ValueError, match=r"flow \[2, H, W\]; got \(3, 20, 30\) and \(2, 20, 20\)"):
        warp(x, torch.zeros(2, 20, 20))
    with pytest.raises(ValueError, match="padding_mode must be one of"):
        warp(x, torch.zeros(2, 20, 30), padding_mode="wrap")
    with pytest.raises(ValueError, match=r"occlusion: forward and backward must be \[2, H, W\]"):
        occlusion(x, x)


def test_examples_run():
    failed, tried = doctest.testmod(imgops.data.video.flow, extraglobs={"torch": torch})
    assert tried
    assert failed == 0
