"""The pairs of container and codec that ``media_matrix.py`` tries, with the options that make ffmpeg write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

#: Containers (file ending) with the options of their muxer.
MOVIES: Final = {
    "mp4": [], "mov": [], "m4v": ["-f", "ipod"], "3gp": [], "mkv": [], "webm": [], "avi": [], "flv": [], "ts": [],
    "m2ts": [], "mpg": ["-f", "mpeg"], "vob": [], "wmv": ["-f", "asf"], "mxf": [], "ogv": [], "nut": [],
    "fragmented.mp4": ["-movflags", "frag_keyframe+empty_moov"], "faststart.mp4": ["-movflags", "faststart"],
}  # fmt: skip
VIDEO_CODECS: Final = {
    "libx264": ["-bf", "3", "-crf", "12"], "libx265": ["-crf", "12", "-x265-params", "log-level=none"],
    "mpeg4": ["-q:v", "2"], "libxvid": ["-q:v", "2"], "mpeg2video": ["-q:v", "2", "-bf", "2"],
    "mpeg1video": ["-q:v", "2"], "libvpx": ["-b:v", "4M", "-crf", "4"], "libvpx-vp9": ["-b:v", "0", "-crf", "10"],
    "libaom-av1": ["-crf", "15", "-cpu-used", "8", "-usage", "realtime"],
    "mjpeg": ["-q:v", "2", "-strict", "unofficial"], "flv": ["-q:v", "2"],
    "h263p": ["-q:v", "2"], "msmpeg4": ["-q:v", "2"], "msmpeg4v2": ["-q:v", "2"], "wmv1": ["-q:v", "2"],
    "wmv2": ["-q:v", "2"], "prores_ks": [], "dnxhd": ["-profile:v", "dnxhr_hq"], "ffv1": [], "huffyuv": [],
    "rawvideo": [], "libtheora": ["-q:v", "10"], "png": [], "qtrle": [], "utvideo": [], "cinepak": [],
}  # fmt: skip
SOUNDS: Final = {
    "wav": [], "rf64.wav": ["-rf64", "always"], "w64": [], "aiff": [], "caf": [], "au": [], "voc": [], "flac": [],
    "ogg": [], "opus": [], "mp3": [], "aac": ["-f", "adts"], "m4a": ["-f", "ipod"], "mka": [], "wma": ["-f", "asf"],
    "ac3": [], "eac3": [], "wv": [], "amr": [], "mp2": [], "tta": [], "ts": [], "mpg": ["-f", "mpeg"], "flv": [],
    "avi": [], "mp4": [], "mov": [], "mkv": [], "webm": [], "mxf": ["-f", "mxf_opatom"],
}  # fmt: skip
AUDIO_CODECS: Final = {
    "pcm_s16le": [], "pcm_s16be": [], "pcm_s24le": [], "pcm_s32le": [], "pcm_f32le": [], "pcm_f64le": [], "pcm_u8": [],
    "pcm_alaw": [], "pcm_mulaw": [], "adpcm_ms": [], "adpcm_ima_wav": [], "flac": [], "alac": [], "libvorbis": [],
    "libopus": [], "libmp3lame": [], "mp2": [], "aac": [], "ac3": [], "eac3": [], "wmav2": [], "wmav1": [],
    "wavpack": [], "tta": [], "libspeex": [], "nellymoser": [], "dca": ["-strict", "-2"], "adpcm_swf": [], "g722": [],
}  # fmt: skip
#: Pixel formats: endings and codecs that hold them. Sizes of a sample from 1 to 16 bits, grey, alpha, full range.
PIXELS: Final = {
    ("mkv", "ffv1"): (
        "yuv411p", "yuv422p", "yuv444p", "yuv420p10", "yuv422p10", "yuv420p12", "yuv444p12", "yuv420p16", "yuva420p",
        "gray", "gray10", "gray12", "gray16", "gbrp10", "gbrp12", "gbrp16", "bgr0", "bgra", "rgb48",
    ),
    ("mp4", "libx265"): ("yuv422p", "yuv444p", "yuv420p10", "yuv422p10", "yuv420p12", "yuv444p12", "gray", "gray12"),
    ("mp4", "libx264"): ("yuvj420p", "yuv422p", "yuv444p", "yuv420p10", "yuv422p10", "gray"),
    ("webm", "libvpx-vp9"): ("yuv420p10", "yuv420p12", "yuv444p", "yuv444p12", "gbrp"),
    ("mp4", "libaom-av1"): ("yuv420p10",),
    ("mov", "prores_ks"): ("yuv422p10", "yuv444p10", "yuva444p10"),
    ("mkv", "mjpeg"): ("yuvj420p", "yuvj422p", "yuvj444p"),
    ("avi", "rawvideo"): ("yuv420p", "yuyv422", "uyvy422", "bgr24", "rgb24", "bgra", "gray", "rgb555le"),
    ("mov", "rawvideo"): ("rgb24", "yuyv422", "uyvy422"),
}  # fmt: skip
#: Interlaced: two fields in each picture, encoded as fields.
INTERLACED: Final = {
    ("ts", "mpeg2video"): ["-q:v", "2", "-flags", "+ildct+ilme", "-top", "1"],
    ("mpg", "mpeg2video"): ["-q:v", "2", "-flags", "+ildct+ilme", "-top", "1", "-f", "mpeg"],
    ("mxf", "mpeg2video"): ["-q:v", "2", "-flags", "+ildct+ilme", "-top", "1"],
    ("mp4", "libx264"): ["-crf", "12", "-flags", "+ildct+ilme", "-x264opts", "tff=1"],
    ("avi", "mpeg4"): ["-q:v", "2", "-flags", "+ildct+ilme"],
}  # fmt: skip
#: Image files: endings and codecs, with their pixel formats.
IMAGES: Final = {
    ("png", "png"): ("rgb24", "rgba", "gray", "ya8", "gray16be", "rgb48be", "rgba64be", "pal8", "monob"),
    ("apng", "apng"): ("rgb24",),
    ("tiff", "tiff"): ("rgb24", "rgba", "gray", "gray16le", "rgb48le", "rgba64le", "pal8", "monob", "yuv420p"),
    ("jpg", "mjpeg"): ("yuvj420p", "yuvj422p", "yuvj444p", "gray"), ("bmp", "bmp"): ("bgr24", "bgra", "gray", "pal8"),
    ("gif", "gif"): ("bgr8", "gray", "pal8"), ("webp", "libwebp"): ("bgra", "yuv420p"),
    ("avif", "libaom-av1"): ("yuv420p", "yuv444p", "yuv420p10", "gray"), ("jxl", "libjxl"): ("rgb24",),
    ("jp2", "jpeg2000"): ("rgb24",), ("ppm", "ppm"): ("rgb24",), ("tga", "targa"): ("bgr24",),
    ("exr", "exr"): ("gbrpf32le",), ("dpx", "dpx"): ("rgb24",), ("qoi", "qoi"): ("rgb24",), ("pcx", "pcx"): ("rgb24",),
}  # fmt: skip
#: Files that say how the picture is to be turned clockwise, in degrees, by the matrix of their track header.
TURNED: Final = {"rotate90.mp4": 90, "rotate180.mov": 180, "rotate270.mp4": 270}


@dataclass(frozen=True)
class Pair:
    """One file to write: its ending, options, and what it holds (``video``, ``audio`` or ``image``)."""

    ending: str
    codec: str
    arguments: tuple[str, ...]
    track: str
    #: What sets it apart from another pair of the same two.
    form: str = ""

    @property
    def content(self) -> str:
        """The codec, with its form."""
        return " ".join(filter(None, (self.codec, self.form)))

    @property
    def name(self) -> str:
        """Unique among the pairs."""
        return f"{self.content} in {self.ending}"


def pairs() -> Iterator[Pair]:
    """All pairs to try: each video codec in each container of movies, each audio codec in each that takes sound."""
    for ending, muxer in MOVIES.items():
        for codec, options in VIDEO_CODECS.items():
            yield Pair(ending, codec, ("-map", "0:v", "-c:v", codec, *options, *muxer), "video")
    for ending, muxer in SOUNDS.items():
        for codec, options in AUDIO_CODECS.items():
            yield Pair(ending, codec, ("-map", "0:a", "-c:a", codec, *options, *muxer), "audio")
    for (ending, codec), formats in PIXELS.items():
        options = VIDEO_CODECS[codec]
        for pixels in formats:
            yield Pair(ending, codec, ("-map", "0:v", "-c:v", codec, *options, "-pix_fmt", pixels), "video", pixels)
    for (ending, codec), options in INTERLACED.items():
        yield Pair(ending, codec, ("-map", "0:v", "-c:v", codec, *options), "video", "interlaced")
    for ending in TURNED:
        yield Pair(ending, "libx264", ("-map", "0:v", "-c:v", "libx264", "-crf", "12"), "video")
    for (ending, codec), formats in IMAGES.items():
        for pixels in formats:
            options = ["-q:v", "2"] if codec == "mjpeg" else ["-still-picture", "1", "-crf", "10"] * (ending == "avif")
            first = ("-map", "0:v", "-frames:v", "1", "-c:v", codec, *options, "-pix_fmt", pixels)
            yield Pair(ending, codec, first, "image", pixels)
