"""Single pictures, videos, and datasets from a folder, a zip, or a ``samples:`` set that needs no download; giving a
picture the colors of another, and the optical flow between two."""

from __future__ import annotations

from ._errors import DataError as DataError
from .datasets import SAMPLE_SETS as SAMPLE_SETS
from .datasets import EndlessSampler as EndlessSampler
from .datasets import ImageDataset as ImageDataset
from .datasets import ImageFolder as ImageFolder
from .datasets import SampleSet as SampleSet
from .datasets import open_dataset as open_dataset
from .pictures import KEEP_COLORS as KEEP_COLORS
from .pictures import Picture as Picture
from .pictures import fill_hidden as fill_hidden
from .pictures import keep_colors as keep_colors
from .pictures import keep_luma as keep_luma
from .pictures import match_covariance as match_covariance
from .pictures import match_histogram as match_histogram
from .pictures import read_picture as read_picture
from .pictures import read_settings as read_settings
from .pictures import resize_picture as resize_picture
from .pictures import write_picture as write_picture
from .pictures.colors import KEEP_COLOURS as KEEP_COLOURS
from .pictures.colors import keep_colours as keep_colours
from .video import Frame as Frame
from .video import VideoInfo as VideoInfo
from .video import VideoWriter as VideoWriter
from .video import is_moving as is_moving
from .video import is_video as is_video
from .video import occlusion as occlusion
from .video import optical_flow as optical_flow
from .video import probe_video as probe_video
from .video import read_frames as read_frames
from .video import read_timed_frames as read_timed_frames
from .video import read_video_settings as read_video_settings
from .video import warp as warp

__all__ = [
    "KEEP_COLORS",
    "KEEP_COLOURS",
    "SAMPLE_SETS",
    "DataError",
    "EndlessSampler",
    "Frame",
    "ImageDataset",
    "ImageFolder",
    "Picture",
    "SampleSet",
    "VideoInfo",
    "VideoWriter",
    "fill_hidden",
    "is_moving",
    "is_video",
    "keep_colors",
    "keep_colours",
    "keep_luma",
    "match_covariance",
    "match_histogram",
    "occlusion",
    "open_dataset",
    "optical_flow",
    "probe_video",
    "read_frames",
    "read_picture",
    "read_settings",
    "read_timed_frames",
    "read_video_settings",
    "resize_picture",
    "warp",
    "write_picture",
]
