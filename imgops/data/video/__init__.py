"""Videos and animations frame by frame, and the optical flow between frames."""

from .flow import occlusion, optical_flow, warp
from .frames import (
    VIDEO_ENDINGS,
    WRITTEN_ENDINGS,
    Frame,
    VideoInfo,
    VideoWriter,
    is_moving,
    is_video,
    probe_video,
    read_frames,
    read_timed_frames,
    read_video_settings,
)

__all__ = [
    "Frame",
    "VIDEO_ENDINGS",
    "VideoInfo",
    "VideoWriter",
    "WRITTEN_ENDINGS",
    "is_moving",
    "is_video",
    "occlusion",
    "optical_flow",
    "probe_video",
    "read_frames",
    "read_timed_frames",
    "read_video_settings",
    "warp",
]
