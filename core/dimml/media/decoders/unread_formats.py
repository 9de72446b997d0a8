"""Formats and codecs that are known but not read: what they are, and what to send instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

from dimml.media.decoders.file_type import HEAD_BYTES, FileType
from dimml.status import Reason


@dataclass(frozen=True, slots=True)
class UnreadFormat:
    """Known format that is not read: what it is, and what to send instead."""

    what: str
    way_out: str
    #: Whether it has no picture track.
    sound_only: bool = False

    def __str__(self) -> str:
        return f"{self.what} is not read: {self.way_out}"


def unread_format(head: bytes) -> UnreadFormat | None:
    """Return the format of a file that ``sniff`` does not take, if ``head`` leaves no doubt about it."""
    for magic, unread in _UNREAD:
        if head.startswith(magic):
            return unread
    if head[257:262] == b"ustar":
        return UnreadFormat("an archive (tar)", _UNPACK)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, unread in _UNREAD_TEXT:
        if text.startswith(magic):
            return unread
    if text.startswith(b"<?xml"):
        return next((unread for element, unread in _UNREAD_XML if element in text), None)
    return None


#: The way out for a recording that is intact, but not read.
CONVERT: Final = "convert it, for instance by ffmpeg to MP4, or to WAV if it has no picture"
_UNPACK: Final = "unpack it and send the recordings that it holds"
_FOLLOW: Final = "it only names other files; send the recording itself"
_REMUX: Final = (
    "it has no times of its own; put it into MP4 or Matroska, for instance by ffmpeg -r RATE -i IN -c copy OUT"
)
#: A track of which most packets carry no time, as FFmpeg writes H.264 into MPEG-PS and Flash's ADPCM into WAV.
UNTIMED: Final = f"a track of which most packets say no time is not read: {CONVERT}"
#: MPEG-1 and MPEG-2 video in ASF as FFmpeg writes it.
STAMPED_BY_DECODING: Final = (
    f"a track of MPEG video whose B-pictures have the times of their decoding is not read: {CONVERT}"
)
#: By demuxer, sound whose times it counts in bytes, though it has no constant rate or FFmpeg does not know it: 3 s were
#: seen to last for minutes in AVI, and for 0.1 s as AAC in WAV.
_MISTIMED: Final[Mapping[str, frozenset[str]]] = {
    "avi": frozenset({"vorbis", "speex", "eac3", "dts", "adpcm_g722"}),
    "wav": frozenset({"aac"}),
    "w64": frozenset({"aac"}),
}
_CONVERT_PICTURE: Final = "convert it to JPEG, PNG or AVIF"
_UNREAD: Final = (
    (b"\xff\x0a", UnreadFormat("JPEG XL", _CONVERT_PICTURE)),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", UnreadFormat("JPEG XL", _CONVERT_PICTURE)),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", UnreadFormat("JPEG 2000", _CONVERT_PICTURE)),
    (b"\xff\x4f\xff\x51", UnreadFormat("JPEG 2000", _CONVERT_PICTURE)),
    (b"\x76\x2f\x31\x01", UnreadFormat("OpenEXR", _CONVERT_PICTURE)),
    (b"SDPX", UnreadFormat("DPX", _CONVERT_PICTURE)),
    (b"XPDS", UnreadFormat("DPX", _CONVERT_PICTURE)),
    (b"qoif", UnreadFormat("QOI", _CONVERT_PICTURE)),
    (b"8BPS", UnreadFormat("Photoshop (PSD)", _CONVERT_PICTURE)),
    *((b"P%d\n" % kind, UnreadFormat("a portable map (PBM, PGM, PPM, PAM)", _CONVERT_PICTURE)) for kind in range(1, 8)),
    (b"nut/multimedia container\0", UnreadFormat("NUT", CONVERT)),
    (b".RMF", UnreadFormat("RealMedia", CONVERT)),
    (b".ra\xfd", UnreadFormat("RealAudio", CONVERT, sound_only=True)),
    (b"MThd", UnreadFormat("MIDI", "it holds notes, not sound; render it to WAV", sound_only=True)),
    (b"\x1f\x07\x00", UnreadFormat("raw DV", "put it into MOV or Matroska, for instance by ffmpeg -i IN -c copy OUT")),
    (b"\x00\x00\x01\xb3", UnreadFormat("an MPEG video stream without a container", _REMUX)),
    (b"\x00\x00\x00\x01\x67", UnreadFormat("an H.264 stream without a container", _REMUX)),
    (b"\x00\x00\x00\x01\x40\x01", UnreadFormat("an H.265 stream without a container", _REMUX)),
    (b"DKIF", UnreadFormat("IVF", CONVERT)),
    (b"YUV4MPEG2 ", UnreadFormat("YUV4MPEG2", CONVERT)),
    (b"FWS", UnreadFormat("Flash (SWF)", CONVERT)),
    (b"CWS", UnreadFormat("Flash (SWF)", CONVERT)),
    (b"MAC ", UnreadFormat("Monkey's Audio", CONVERT, sound_only=True)),
    (b"MPCK", UnreadFormat("Musepack", CONVERT, sound_only=True)),
    (b"MP+", UnreadFormat("Musepack", CONVERT, sound_only=True)),
    (b"TTA1", UnreadFormat("True Audio", CONVERT, sound_only=True)),
    (b"\x7f\xfe\x80\x01", UnreadFormat("DTS without a container", CONVERT, sound_only=True)),
    (b"\xfe\x7f\x01\x80", UnreadFormat("DTS without a container", CONVERT, sound_only=True)),
    (b"ajkg", UnreadFormat("Shorten", CONVERT, sound_only=True)),
    (b"DSD ", UnreadFormat("DSF", CONVERT, sound_only=True)),
    (b"FRM8", UnreadFormat("DSDIFF", CONVERT, sound_only=True)),
    (b"#!AMR_MC1.0\n", UnreadFormat("AMR with several channels", CONVERT, sound_only=True)),
    (b"#!AMR-WB_MC1.0\n", UnreadFormat("AMR-WB with several channels", CONVERT, sound_only=True)),
    (b"PK\x03\x04", UnreadFormat("an archive (ZIP)", _UNPACK)),
    (b"\x1f\x8b\x08", UnreadFormat("a compressed file (gzip)", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", UnreadFormat("an archive (7z)", _UNPACK)),
    (b"Rar!\x1a\x07", UnreadFormat("an archive (RAR)", _UNPACK)),
    (b"\xfd7zXZ\x00", UnreadFormat("a compressed file (xz)", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", UnreadFormat("a compressed file (zstd)", _UNPACK)),
    (b"%PDF-", UnreadFormat("PDF", "send a recording or a picture")),
    (
        b"version https://git-lfs.github.com/spec/",
        UnreadFormat("a Git LFS pointer", "fetch the recording that it stands for by git lfs pull"),
    ),
)
#: Texts, in small letters and without white space before them.
_UNREAD_TEXT: Final = (
    (b"#extm3u", UnreadFormat("a playlist (M3U)", _FOLLOW)),
    (b"ffconcat version", UnreadFormat("a playlist (ffconcat)", _FOLLOW)),
    (b"[playlist]", UnreadFormat("a playlist (PLS)", _FOLLOW)),
    (b"<asx", UnreadFormat("a playlist (ASX)", _FOLLOW)),
    (b"<mpd", UnreadFormat("a playlist (DASH)", _FOLLOW)),
    (b"v=0\no=", UnreadFormat("a session description (SDP)", _FOLLOW)),
    (b"v=0\r\no=", UnreadFormat("a session description (SDP)", _FOLLOW)),
    (
        b"<!doctype html",
        UnreadFormat("a web page", "download the recording that it shows, or the error that it reports"),
    ),
    (b"<html", UnreadFormat("a web page", "download the recording that it shows, or the error that it reports")),
    (b"<svg", UnreadFormat("SVG", "render it to PNG")),
)
_UNREAD_XML: Final = (
    (b"<mpd", UnreadFormat("a playlist (DASH)", _FOLLOW)),
    (b"<compositionplaylist", UnreadFormat("a playlist (IMF)", _FOLLOW)),
    (b"<svg", UnreadFormat("SVG", "render it to PNG")),
)


#: Compression types of AIFF-C that libsndfile or FFmpeg knows (AIFF-C draft of 1991, and what QuickTime added).
_AIFC_CODECS: Final = frozenset(
    (
        *(b"NONE", b"none", b"sowt", b"twos", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32"),
        *(b"alaw", b"ALAW", b"ulaw", b"ULAW", b"ima4", b"GSM ", b"MAC3", b"MAC6", b"DWVW"),
    )
)


#: WAVE_FORMAT_PCM and WAVE_FORMAT_IEEE_FLOAT.
_RIFX_TAGS: Final = frozenset({1, 3})


def sound_codec(file: BinaryIO, file_type: FileType) -> str | None:
    """Return the codec that the header of a WAV or AIFF-C names, for a message; None if it names none.

    Of AIFF-C and of RIFX, the big-endian WAV, a codec is returned only if nothing here reads it.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if file_type.demuxer == "wav" and head[12:16] == b"fmt ":
        big_endian = head[:4] == b"RIFX"
        tag = int.from_bytes(head[20:22], "big" if big_endian else "little")
        if tag == 0 or (big_endian and tag in _RIFX_TAGS):
            return None
        return f"format tag 0x{tag:04X}{' in RIFX' if big_endian else ''}"
    if head[8:12] != b"AIFC":
        return None
    position = 12
    while position + 30 <= len(head):
        size = int.from_bytes(head[position + 4 : position + 8], "big")
        if head[position : position + 4] == b"COMM":
            codec = head[position + 26 : position + 30]
            known = codec in _AIFC_CODECS or not (codec.isascii() and codec.decode("ascii").isprintable())
            return None if known else f"codec {codec.decode('ascii')}"
        position += 8 + size + size % 2
    return None


def why_unopened(file: BinaryIO, file_type: FileType) -> tuple[Reason, str]:
    """Tell a codec that is not read from damage, for a file that FFmpeg does not open; with a sentence about it."""
    codec = sound_codec(file, file_type)
    if codec is not None and file_type.demuxer == "aiff":
        return Reason.UNSUPPORTED, f"AIFF-C with {codec} is not read: {CONVERT}"
    if codec is not None and codec.endswith("RIFX"):
        return Reason.UNSUPPORTED, f"WAV with {codec} is not read: {CONVERT}"
    return Reason.UNDECODABLE, f"{file_type.name} that is damaged or cut off: nothing of it can be read"


def why_mistimed(demuxer: str, codec: str) -> str | None:
    """Say why the times of a track are not those of what it holds, as a sentence; None where they are."""
    if codec in _MISTIMED.get(demuxer, ()):
        return f"{demuxer.upper()} with {codec} is not read, since its times are not those of the sound: {CONVERT}"
    return None


def why_undecoded(file: BinaryIO, file_type: FileType, kind: str) -> tuple[Reason, str]:
    """Tell a codec that is not read from damage, for a track without a decoder; with a sentence about it."""
    codec = sound_codec(file, file_type)
    if codec is not None:
        return Reason.UNSUPPORTED, f"{file_type.name} with {codec} is not read: {CONVERT}"
    track = "sound" if kind == "audio" else "picture"
    # FFmpeg says no more: a codec that it does not know, or no description of one.
    return Reason.UNDECODABLE, f"its {track} track names no codec that is known: if other players read it, {CONVERT}"
