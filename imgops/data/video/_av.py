"""Videos by PyAV (FFmpeg): reads frames, and writes frames and sound to a file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .._errors import DataError

#: FFmpeg's name of each container, and the encoder of its pictures
_CONTAINERS = {
    ".mp4": ("mp4", "libx264"),
    ".mov": ("mov", "libx264"),
    ".mkv": ("matroska", "libx264"),
    ".webm": ("webm", "libvpx-vp9"),
}
#: options for a constant quality that can hardly be told from the original frames
_OPTIONS = {
    "libx264": {"crf": "17", "preset": "medium"},
    "libvpx-vp9": {"crf": "20", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
}
#: audio codecs that a container holds and common players can play; any other is encoded as the first of them
_SOUND = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"),
    ".mkv": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "dts", "truehd", "pcm_s16le", "pcm_s24le"),
    ".webm": ("opus", "vorbis"),
}
_SOUND_ENCODERS = {"aac": "aac", "opus": "libopus"}
#: sample rate for sound that is encoded anew, which both encoders support
_RATE = 48000
#: FFmpeg's numbers: the color matrix of HD pictures, an unspecified matrix, and the range 16 to 235
_BT709, _UNKNOWN, _LIMITED = 1, 2, 1
#: FFmpeg's flags for a conversion without bias: bicubic, accurate rounding, chroma at every pixel
_CONVERSION = 0x4 | 0x40000 | 0x2000 | 0x4000
#: a video of unspecified matrix is taken for HD from this height on
_HD_HEIGHT = 720


def _open(path: Path) -> Any:
    try:
        # the prefix keeps a colon in a name from being read as a protocol
        return av.open(f"file:{path}")
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a video that FFmpeg can read ({error.strerror})") from None


def _create(path: Path, format: str) -> Any:
    # the index of MP4 and MOV goes to the front, so that a browser can play before it has the whole file
    options = {"movflags": "faststart"} if format in ("mp4", "mov") else {}
    return av.open(f"file:{path}", "w", format=format, container_options=options)


def _frames(container: Any, path: Path) -> Iterator[Any]:
    if not container.streams.video:
        raise DataError(f"{path}: holds no pictures, only {', '.join(s.type for s in container.streams) or 'nothing'}")
    stream, count = container.streams.video[0], 0
    stream.thread_type = "AUTO"
    try:
        for frame in container.decode(stream):
            yield frame
            count += 1
    except av.FFmpegError as error:
        raise DataError(f"{path}: damaged or truncated video after {count} frames ({error.strerror})") from None
    if count == 0:
        raise DataError(f"{path}: damaged or truncated video, without a single frame")


def av_info(path: Path) -> tuple[int, int, Fraction, int | None, Fraction, bool]:
    """(width, height, mean frames per second, approximate number of frames if that is known, the fraction of a second
    that their times are multiples of, whether there is sound).

    Raises:
        DataError: as :func:`av_frames`.
    """
    with _open(path) as container:
        frame = next(_frames(container, path))
        stream = container.streams.video[0]
        fps = _rate(stream)
        frames = stream.frames
        if not frames and container.duration:
            frames = round(container.duration * fps / av.time_base)
        height, width = (frame.height, frame.width)[:: -1 if _turns(frame) % 2 else 1]
        time_base = Fraction(stream.time_base or 1 / fps)
        return width, height, fps, frames or None, time_base, bool(container.streams.audio)


def _rate(stream: Any) -> Fraction:
    """The mean frame rate of a stream, per second."""
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def av_frames(path: Path) -> Iterator[tuple[np.ndarray, Fraction]]:
    """The frames, uint8 [H, W, 3], upright, and how long each is shown, in seconds: until the next one, if the file
    says so.

    Raises:
        DataError: it is no video that FFmpeg reads, or a damaged one.
    """
    with _open(path) as container:
        frames = _frames(container, path)
        frame: Any = next(frames)
        usual = 1 / _rate(container.streams.video[0])
        for following in itertools.chain(frames, [None]):
            yield _upright(frame), _shown(frame, following) or usual
            frame = following


def _shown(frame: Any, following: Any) -> Fraction | None:
    """How long a frame is shown in seconds, if the file says so."""
    if following is None:
        ticks = frame.duration
    else:
        ticks = 0 if frame.pts is None or following.pts is None else following.pts - frame.pts
    return Fraction(ticks) * frame.time_base if ticks > 0 else None


def _upright(frame: Any) -> np.ndarray:
    """The pixels of a frame as a player shows it, uint8 [H, W, 3]."""
    unknown = frame.colorspace == _UNKNOWN and frame.height >= _HD_HEIGHT
    matrix = "ITU709" if unknown else None
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=_CONVERSION)
    return np.rot90(rgb.to_ndarray(), _turns(frame))


def _turns(frame: Any) -> int:
    """Quarter turns, counterclockwise, that bring a frame upright."""
    return round(frame.rotation / 90)


def av_comment(path: Path) -> str:
    """The comment of a video, or an empty string.

    Raises:
        DataError: it is no video that FFmpeg reads.
    """
    with _open(path) as container:
        return next((text for key, text in container.metadata.items() if key.lower() == "comment"), "")


class _Sound:
    """The sound of a video or sound file, for another container: copied if that holds its kind, else encoded anew."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path = path
        self.source = _open(path)
        pictures = self.source.streams.video
        #: the time of the first picture, s
        self.start = pictures[0].start_time * pictures[0].time_base if pictures and pictures[0].start_time else 0
        self.streams = {stream.index: stream for stream in self.source.streams.audio if stream.codec_context}
        self.encoders: dict[int, str] = {}
        for index, stream in self.streams.items():
            if stream.codec_context.codec.canonical_name not in _SOUND[suffix]:
                self.encoders[index] = check_encoder(_SOUND_ENCODERS[_SOUND[suffix][0]])
        self.targets: dict[int, Any] = {}
        self.packets = self._read()
        self.held: Any = None

    def add_streams(self, container: Any) -> None:
        """Add a stream for each of these to an output container."""
        for index, stream in self.streams.items():
            if index not in self.encoders:
                self.targets[index] = container.add_stream_from_template(stream)
                continue
            layout = "mono" if stream.channels == 1 else "stereo"
            self.targets[index] = container.add_stream(self.encoders[index], rate=_RATE, layout=layout)

    def _read(self) -> Iterator[Any]:
        try:
            if self.streams:
                yield from self.source.demux(*self.streams.values())
        except av.FFmpegError as error:
            raise DataError(f"{self.path}: damaged or truncated sound ({error.strerror})") from None

    def packets_until(self, time: Fraction) -> Iterator[Any]:
        """The packets that begin before ``time`` (seconds) and were not returned before."""
        while True:
            packet = self.held or next(self.packets, None)
            self.held = None
            if packet is None:
                return
            if packet.dts is None:
                continue
            if packet.dts * packet.time_base - self.start >= time:
                self.held = packet
                return
            yield from self._encoded(packet) if packet.stream.index in self.encoders else [self._copied(packet)]

    def _copied(self, packet: Any) -> Any:
        shift = round(self.start / packet.time_base)
        packet.pts, packet.dts = packet.dts - shift if packet.pts is None else packet.pts - shift, packet.dts - shift
        packet.stream = self.targets[packet.stream.index]
        return packet

    def _encoded(self, packet: Any) -> Iterator[Any]:
        index = packet.stream.index
        try:
            frames = packet.decode()
        except av.FFmpegError:
            # a moment of silence is better than losing the whole video
            return
        for frame in frames:
            if frame.pts is not None:
                frame.pts -= round(self.start / frame.time_base)
            yield from self.targets[index].encode(frame)

    def flush(self) -> Iterator[Any]:
        """The packets that the encoders still hold."""
        for index in self.encoders:
            yield from self.targets[index].encode(None)


def check_encoder(name: str) -> str:
    """Return the name of an encoder if FFmpeg has it.

    Raises:
        ValueError: it has not.
    """
    try:
        av.Codec(name, "w")
    except ValueError:
        raise ValueError(f"this FFmpeg was built without {name}; the wheel of PyAV has it: pip install av") from None
    return name


class AvEncoder:
    """Writes frames, and the sound of another video, to a video: H.264, or VP9 in WebM, in 4:2:0 and BT.709.

    Args:
        path: the file to write; its ending names the container.
        fps: mean frames per second, > 0.
        time_base: the fraction of a second that the frames' times are rounded to.
        comment: the comment to store in the file, if any.
        audio_from: a video whose sound is kept as far as the frames last: copied where the container holds its kind,
            else encoded anew.

    Raises:
        OSError, DataError, ValueError: the source of the sound cannot be read; FFmpeg lacks an encoder.
    """

    def __init__(
        self, path: Path, fps: Fraction, time_base: Fraction, comment: str | None, audio_from: Path | None
    ) -> None:
        #: where the next frame begins, s
        self.time = Fraction()
        #: durations of the frames that are still in the encoder, by their times, in units of the time base
        self.durations: dict[int, int] = {}
        suffix = path.suffix.lower()
        format, codec = _CONTAINERS[suffix]
        check_encoder(codec)
        self.sound = None if audio_from is None else _Sound(audio_from, suffix)
        self.container = _create(path, format)
        if comment is not None:
            self.container.metadata["comment"] = comment
        self.stream = self.container.add_stream(codec, rate=fps, options=_OPTIONS[codec])
        self.stream.pix_fmt, self.stream.bit_rate = "yuv420p", 0
        context = self.stream.codec_context
        context.time_base = self.stream.time_base = self.time_base = time_base
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        if self.sound is not None:
            self.sound.add_streams(self.container)

    def write(self, pixels: np.ndarray, duration: Fraction) -> None:
        """Add a frame, uint8 [H, W, 3], for a time in seconds; a last row or column is repeated if a side is odd."""
        height, width = pixels.shape[:2]
        if self.time == 0:
            self.stream.width, self.stream.height = width + width % 2, height + height % 2
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame: Any = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", interpolation=_CONVERSION)
        frame.pts, frame.time_base = round(self.time / self.time_base), self.time_base
        self.time += duration
        self.durations[frame.pts] = round(self.time / self.time_base) - frame.pts
        self._mux(self.stream.encode(frame))
        self._mux_sound()

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            # encoders leave the duration out, and the container would guess how long the last frame is shown
            packet.duration = self.durations.pop(packet.pts, packet.duration)
            self.container.mux(packet)

    def _mux_sound(self) -> None:
        if self.sound is not None:
            for packet in self.sound.packets_until(self.time):
                self.container.mux(packet)

    def finish(self) -> None:
        """Write what the encoders still hold, and the end of the file."""
        self._mux(self.stream.encode(None))
        if self.sound is not None:
            for packet in self.sound.flush():
                self.container.mux(packet)
        self.container.close()

    def close(self) -> None:
        """Close the files, whether they are finished or discarded."""
        if self.sound is not None:
            self.sound.source.close()
        with suppress(av.FFmpegError):
            self.container.close()
