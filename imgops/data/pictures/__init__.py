"""Single pictures: read, written, resized, in the colors of another; and the free ones that need no download."""

from .colors import KEEP_COLORS, is_gray, keep_colors, keep_luma, match_covariance, match_histogram
from .reading import Picture, fill_hidden, read_picture
from .resizing import resample, resample_picture, resize_picture, resized_shape
from .writing import picture_format, png_info, read_settings, write_picture

__all__ = [
    "KEEP_COLORS",
    "Picture",
    "fill_hidden",
    "is_gray",
    "keep_colors",
    "keep_luma",
    "match_covariance",
    "match_histogram",
    "picture_format",
    "png_info",
    "read_picture",
    "read_settings",
    "resample",
    "resample_picture",
    "resize_picture",
    "resized_shape",
    "write_picture",
]
