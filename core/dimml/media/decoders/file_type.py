"""What a file is, by its first bytes. The client's file name and content type are never believed.

Only what is listed here is ever handed to a decoder. Playlists (``.m3u8``, ffconcat, DASH, SDP) are texts that
name other files; none of them has a signature here, so FFmpeg never gets to follow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

#: Bytes that ``sniff`` needs.
HEAD_BYTES: Final = 4096

_TS_PACKET_BYTES: Final = 188
_M2TS_PACKET_BYTES: Final = 192
_TS_SYNC: Final = 0x47
_MOV_ATOMS: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx"}
)


@dataclass(frozen=True, slots=True)
class FileType:
    """How to read a file: ``container`` through PyAV, ``sound`` through soundfile first, ``image`` through OpenCV,
    ``flow`` as an array of displacements."""

    kind: Literal["container", "sound", "image", "flow"]
    #: FFmpeg's short name of the only demuxer that may open it; for an image or a flow, the name of its format.
    demuxer: str


def sniff(head: bytes) -> FileType | None:
    """The type of a file that begins with ``head`` (up to ``HEAD_BYTES``), or None where it is none we read."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return FileType("container", "matroska")
    picture = _picture_brand(head)
    if picture is not None:
        return picture
    if head[4:8] in _MOV_ATOMS:
        return FileType("container", "mov")
    if head[:4] in {b"RIFF", b"RF64"}:
        return _RIFF.get(head[8:12])
    for magic, file_type in _MAGIC:
        if head.startswith(magic):
            return file_type
    if _is_transport_stream(head):
        return FileType("container", "mpegts")
    return _mpeg_audio(head)


_RIFF: Final = {
    b"AVI ": FileType("container", "avi"),
    b"WAVE": FileType("sound", "wav"),
    b"WEBP": FileType("image", "webp"),
}
_MAGIC: Final = (
    (b"FLV\x01", FileType("container", "flv")),
    (b"OggS", FileType("sound", "ogg")),
    (b"fLaC", FileType("sound", "flac")),
    (b"\x89PNG\r\n\x1a\n", FileType("image", "png")),
    (b"\xff\xd8\xff", FileType("image", "jpeg")),
    (b"BM", FileType("image", "bmp")),
    (b"GIF87a", FileType("image", "gif")),
    (b"GIF89a", FileType("image", "gif")),
    (b"II*\0", FileType("image", "tiff")),
    (b"MM\0*", FileType("image", "tiff")),
    (b"\x93NUMPY", FileType("flow", "npy")),
)


#: Brands of picture files (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 6) beside ``mif1``. Files whose
#: major brand is one of sequences (``msf1``, ``hevc``, ``avis``) have tracks, and times, as recordings do.
_PICTURE_BRANDS: Final = {
    b"avif": FileType("image", "avif"),
    b"heic": FileType("image", "heic"),
    b"heix": FileType("image", "heic"),
    b"heim": FileType("image", "heic"),
    b"heis": FileType("image", "heic"),
}


def _picture_brand(head: bytes) -> FileType | None:
    """Find the picture format that an ``ftyp`` box names, by its major brand or, of ``mif1``, a compatible one."""
    if head[4:8] != b"ftyp":
        return None
    major, end = head[8:12], int.from_bytes(head[:4], "big")
    if major not in {b"mif1", b"mif2"}:
        return _PICTURE_BRANDS.get(major)
    brands = [head[at : at + 4] for at in range(16, min(end, len(head)), 4)]
    return next((_PICTURE_BRANDS[brand] for brand in brands if brand in _PICTURE_BRANDS), FileType("image", "heic"))


def identify(file: BinaryIO) -> FileType | None:
    """The type of an open file; an ID3 tag before the sound is passed over."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head.startswith(b"ID3") and len(head) >= 10:
        # Four bytes of seven bits each, without the tag's own header of ten.
        length = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + length)
        tagged = sniff(file.read(HEAD_BYTES))
        # MP3 is what such tags are for; anything may lie between the tag and its first frame.
        return tagged if tagged is not None and tagged.demuxer in {"aac", "flac"} else FileType("sound", "mp3")
    return sniff(head)


def _is_transport_stream(head: bytes) -> bool:
    """Three sync bytes at the distance of a packet; M2TS puts four bytes of time before each packet."""
    return any(
        len(head) > first + 2 * step and all(head[first + i * step] == _TS_SYNC for i in range(3))
        for first, step in ((0, _TS_PACKET_BYTES), (4, _M2TS_PACKET_BYTES))
    )


def _mpeg_audio(head: bytes) -> FileType | None:
    """ADTS or MPEG audio by its frame sync: eleven set bits, then a version and a layer that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return FileType("container", "aac")
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    exists = version != 1 and layer != 0 and bitrate not in {0, 15} and rate != 3
    return FileType("sound", "mp3") if exists else None
