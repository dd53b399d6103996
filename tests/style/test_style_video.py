"""A video in a style: each frame goes on from the last one's result, moved along."""

from __future__ import annotations

import pytest
import torch

from imgops.data.pictures import resize_picture
from imgops.data.video.flow import occlusion, optical_flow, warp
from imgops.style import OptimizeSettings, Transfer, TransferSettings, stylize_frames
from imgops.style.adain import AdaINPass
from tests.style.test_optimization import picture


def moving(count: int = 3) -> list[torch.Tensor]:
    """Frames [3, 48, 64] of a smooth picture that moves to the left by 3 pixels each."""
    whole = picture(1, 48, 64 + 4 * count).float()
    return [whole[:, :, 3 * i : 3 * i + 64] for i in range(count)]


@pytest.fixture(scope="module")
def optimizing() -> Transfer:
    optimize = OptimizeSettings(first_size=32, steps=4, later_steps=2, frame_steps=2, style_layers={"relu2_1": 1.0})
    return Transfer(TransferSettings(weights="embedded", size=40, optimize=optimize))


STYLE = picture(2, 40, 40).float()


def test_a_frame_begins_with_the_last_result_moved(optimizing):
    frames = moving()
    results = list(stylize_frames(frames, optimizing, [STYLE]))
    assert [result.shape for result in results] == [(3, 30, 40)] * 3
    torch.testing.assert_close(results[0], optimizing(frames[0], [STYLE]), rtol=0, atol=1e-5)
    small = [resize_picture(frame, 40) for frame in frames]
    backward = optical_flow(small[0], small[1])
    hidden = occlusion(optical_flow(small[1], small[0]), backward)
    assert 0 < hidden.float().mean() < 0.5
    begun = torch.where(hidden, small[1], warp(results[0], backward).clamp(0, 1))
    expected = optimizing(small[1], [STYLE], init=begun)
    torch.testing.assert_close(results[1], expected, rtol=0, atol=1e-5)
    assert (results[1] - optimizing(frames[1], [STYLE])).abs().max() > 0.05


def test_it_goes_on_as_if_never_stopped(optimizing):
    frames = moving()
    whole = list(stylize_frames(frames, optimizing, [STYLE]))
    rest = list(stylize_frames(frames[2:], optimizing, [STYLE], before=(frames[1], whole[1])))
    assert len(rest) == 1
    torch.testing.assert_close(rest[0], whole[2], rtol=0, atol=1e-5)


def test_masks_are_for_every_frame(optimizing):
    mask = torch.zeros(1, 48, 64)
    mask[:, :, :32] = 1
    frames = moving(2)
    for frame, result in zip(frames, stylize_frames(frames, optimizing, [STYLE], masks=[mask]), strict=True):
        difference = (result - resize_picture(frame, 40)).abs().amax(0)
        assert difference[:, :18].max() > 0.05
        assert difference[:, 22:].max() < 1e-5


@pytest.mark.parametrize("method", ["fast", "adain", "efdm"])
def test_other_methods_make_each_frame_by_itself(method):
    more = {"method": "adain", "statistics": "efdm"} if method == "efdm" else {"method": method}
    transfer = Transfer(TransferSettings(size=32, **more), ["hubble"] if method == "fast" else [])
    frames, styles = moving(2), [] if method == "fast" else [STYLE]
    for frame, result in zip(frames, stylize_frames(frames, transfer, styles), strict=True):
        assert torch.equal(result, transfer(resize_picture(frame, 32), styles))


@pytest.mark.parametrize(("keep", "times"), [(None, 1), ("coral", 3)])
def test_a_style_is_encoded_once_unless_it_takes_the_colors_of_each_frame(keep, times, monkeypatch):
    transfer, frames = Transfer(TransferSettings(method="adain", size=32, keep_colors=keep)), moving(3)
    expected = [transfer(resize_picture(frame, 32), [STYLE]) for frame in frames]
    encode, seen = AdaINPass.encode_style, []
    monkeypatch.setattr(AdaINPass, "encode_style", lambda *arguments: seen.append(1) or encode(*arguments))
    results = list(stylize_frames(frames, transfer, [STYLE]))
    assert len(seen) == times
    assert all(map(torch.equal, results, expected))


def test_every_frame_is_checked_and_may_have_another_shape():
    transfer, frames = Transfer(TransferSettings(method="fast", size=32), ["hubble"]), moving(1)
    frames += [frames[0][:, :40], frames[0].transpose(1, 2)]
    assert [result.shape[1:] for result in stylize_frames(frames, transfer, [])] == [(24, 32), (20, 32), (32, 24)]
    with pytest.raises(ValueError, match="content has values that are not finite"):
        list(stylize_frames([frames[0], frames[0] * torch.nan], transfer, []))


def test_frames_are_made_as_they_are_asked_for(optimizing):
    with pytest.raises(ValueError, match=r"content must be \[3, H, W\]"):
        list(stylize_frames([torch.rand(1, 48, 64)], optimizing, [STYLE]))
    first = next(stylize_frames((frame for frame in [moving(1)[0], None]), optimizing, [STYLE]))
    assert first.shape == (3, 30, 40)
