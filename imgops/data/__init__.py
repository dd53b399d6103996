"""Single pictures, videos, and datasets from a folder, a zip, shards, or a ``samples:`` set that needs no download;
giving a picture the colors of another, and the optical flow between two.

Names load on first use, so that the command line can list its options without loading torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._errors import DataError as DataError
    from .datasets import SAMPLE_SETS as SAMPLE_SETS
    from .datasets import EndlessSampler as EndlessSampler
    from .datasets import ImageDataset as ImageDataset
    from .datasets import ImageFolder as ImageFolder
    from .datasets import PictureFiles as PictureFiles
    from .datasets import SampleSet as SampleSet
    from .datasets import ShardSet as ShardSet
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
    from .preparing.prepare import Prepared as Prepared
    from .preparing.prepare import prepare_dataset as prepare_dataset
    from .preparing.settings import PrepareSettings as PrepareSettings
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

_HOMES = {
    "DataError": "._errors",
    "EndlessSampler": ".datasets",
    "Frame": ".video",
    "ImageDataset": ".datasets",
    "ImageFolder": ".datasets",
    "KEEP_COLORS": ".pictures",
    "KEEP_COLOURS": ".pictures.colors",
    "Picture": ".pictures",
    "PictureFiles": ".datasets",
    "PrepareSettings": ".preparing.settings",
    "Prepared": ".preparing.prepare",
    "SAMPLE_SETS": ".datasets",
    "SampleSet": ".datasets",
    "ShardSet": ".datasets",
    "VideoInfo": ".video",
    "VideoWriter": ".video",
    "fill_hidden": ".pictures",
    "is_moving": ".video",
    "is_video": ".video",
    "keep_colors": ".pictures",
    "keep_colours": ".pictures.colors",
    "keep_luma": ".pictures",
    "match_covariance": ".pictures",
    "match_histogram": ".pictures",
    "occlusion": ".video",
    "open_dataset": ".datasets",
    "optical_flow": ".video",
    "prepare_dataset": ".preparing.prepare",
    "probe_video": ".video",
    "read_frames": ".video",
    "read_picture": ".pictures",
    "read_settings": ".pictures",
    "read_timed_frames": ".video",
    "read_video_settings": ".video",
    "resize_picture": ".pictures",
    "warp": ".video",
    "write_picture": ".pictures",
}

__all__ = [*_HOMES]

__getattr__ = lazy_names(__name__, _HOMES)
