"""Recognition of media by their first bytes; a client's file name and content type are never believed.

Only formats for which ``sniff`` returns a ``FileType`` are handed to a decoder. Playlists (``.m3u8``, ffconcat, DASH,
SDP) are texts that name other files: they are recognised in order to refuse them by name, never to follow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

from dimml.media.decoders.framing.resync import find_stream

#: Bytes from a file's start that ``sniff`` and ``unread_format`` look at.
HEAD_BYTES: Final = 4096

_TS_PACKET_BYTES: Final = 188
_M2TS_PACKET_BYTES: Final = 192
_TS_SYNC: Final = 0x47
_MOV_ATOMS: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx"}
)
#: Names of formats for people, where the demuxer's name in capitals is not one.
_NAMES: Final = {
    "mov": "MP4 or MOV",
    "matroska": "Matroska or WebM",
    "mpegts": "MPEG transport stream",
    "mpeg": "MPEG program stream",
    "asf": "ASF (WMV, WMA)",
    "nistsphere": "NIST SPHERE",
    "aac": "AAC (ADTS)",
    "ac3": "AC-3",
    "eac3": "E-AC-3",
    "wv": "WavPack",
    "ogg": "Ogg",
}
#: Demuxers of files that hold one sound track and nothing else but perhaps a cover.
_SOUND_ONLY: Final = frozenset(
    {"wav", "flac", "mp3", "aiff", "au", "caf", "w64", "nistsphere", "aac", "voc", "amr", "ac3", "eac3", "wv"}
)


@dataclass(frozen=True, slots=True)
class FileType:
    """Way to read a file.

    ``container`` is read through PyAV, ``sound`` through soundfile first, ``image`` through OpenCV, and ``flow`` is an
    array of displacements.
    """

    kind: Literal["container", "sound", "image", "flow"]
    #: FFmpeg's short name of the only demuxer that may open it; for an image or a flow, the name of its format.
    demuxer: str

    @property
    def name(self) -> str:
        """Name of the format in messages, such as ``"MPEG program stream"``."""
        return _NAMES.get(self.demuxer, self.demuxer.upper())

    @property
    def sound_only(self) -> bool:
        """Whether files of this format never have a picture track, be they intact or damaged."""
        return self.demuxer in _SOUND_ONLY


@dataclass(frozen=True, slots=True)
class UnreadFormat:
    """Known format that is not read: what it is, and what to send instead."""

    what: str
    way_out: str
    #: Whether it has no picture track.
    sound_only: bool = False

    def __str__(self) -> str:
        return f"{self.what} is not read: {self.way_out}"


def sniff(head: bytes) -> FileType | None:
    """Return the type of a file that begins with ``head`` (up to ``HEAD_BYTES``), or None if it is not read."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return FileType("container", "matroska")
    picture = _picture_brand(head)
    if picture is not None:
        return picture
    if head[4:8] in _MOV_ATOMS:
        return FileType("container", "mov")
    if head[:4] in _CHUNKED:
        return _CHUNKED[head[:4]].get(head[8:12])
    for magic, file_type in _MAGIC:
        if head.startswith(magic):
            return file_type
    if _is_program_stream(head):
        return FileType("container", "mpeg")
    if _is_transport_stream(head):
        return FileType("container", "mpegts")
    return _dolby_audio(head) or _mpeg_audio(head)


_RIFF: Final = {
    b"AVI ": FileType("container", "avi"),
    b"WAVE": FileType("sound", "wav"),
    b"WEBP": FileType("image", "webp"),
}
#: Formats of chunks, by the first four bytes, then by the form that stands behind the size.
_CHUNKED: Final = {
    b"RIFF": _RIFF,
    b"RF64": _RIFF,
    b"RIFX": {b"WAVE": FileType("sound", "wav")},
    b"FORM": {b"AIFF": FileType("sound", "aiff"), b"AIFC": FileType("sound", "aiff")},
}
_MAGIC: Final = (
    (b"FLV\x01", FileType("container", "flv")),
    # The GUID of ASF's header object (Advanced Systems Format specification, section 10.1).
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), FileType("container", "asf")),
    # A header partition pack's key up to its status (SMPTE ST 377-1, section 7.1).
    (bytes.fromhex("060e2b34020501010d0102010102"), FileType("container", "mxf")),
    (b"OggS", FileType("sound", "ogg")),
    (b"fLaC", FileType("sound", "flac")),
    (b".snd", FileType("sound", "au")),
    (b"caff\x00\x01", FileType("sound", "caf")),
    # The GUID that Sonic Foundry wrote for RIFF.
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), FileType("sound", "w64")),
    (b"NIST_1A\n", FileType("sound", "nistsphere")),
    # libsndfile (1.2.2) takes the headers of all blocks but the first for samples.
    (b"Creative Voice File\x1a", FileType("container", "voc")),
    (b"#!AMR\n", FileType("container", "amr")),
    (b"#!AMR-WB\n", FileType("container", "amr")),
    (b"wvpk", FileType("container", "wv")),
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
    """Return the type of an open file; an ID3 tag before the sound is passed over."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    tag = id3_bytes(head)
    if tag:
        file.seek(tag)
        tagged = sniff(file.read(HEAD_BYTES))
        # MP3 is what such tags are for; anything may lie between the tag and its first frame.
        return tagged if tagged is not None and tagged.demuxer in {"aac", "flac"} else FileType("sound", "mp3")
    file_type = sniff(head)
    return _cut_stream(file) if file_type is None else file_type


def _cut_stream(file: BinaryIO) -> FileType | None:
    """The type of a stream that begins inside a frame."""
    demuxer = find_stream(file)
    if demuxer is None:
        return None
    return FileType("sound" if demuxer == "mp3" else "container", demuxer)


def id3_bytes(head: bytes) -> int:
    """Bytes of the ID3v2 tag that a file begins with, 0 if there is none."""
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    # Four bytes of seven bits each, without the tag's own header of ten.
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


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
_UNREAD: Final = (
    (b"\xff\x0a", UnreadFormat("JPEG XL", "convert it to JPEG, PNG or AVIF")),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", UnreadFormat("JPEG XL", "convert it to JPEG, PNG or AVIF")),
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


def _is_program_stream(head: bytes) -> bool:
    """Whether a pack header of MPEG-1 or MPEG-2 comes first (ISO 11172-1, 2.4.3.2; ISO 13818-1, 2.5.3.3)."""
    return len(head) > 4 and head.startswith(b"\x00\x00\x01\xba") and (head[4] & 0xF1 == 0x21 or head[4] & 0xC4 == 0x44)


def _is_transport_stream(head: bytes) -> bool:
    """Whether three sync bytes stand a packet apart; M2TS puts four bytes of time before each packet."""
    return any(
        len(head) > first + 2 * step and all(head[first + i * step] == _TS_SYNC for i in range(3))
        for first, step in ((0, _TS_PACKET_BYTES), (4, _M2TS_PACKET_BYTES))
    )


#: Bit rates of AC-3 in kbit/s, by half of ``frmsizecod`` (ATSC A/52, table 5.18).
_AC3_KBITS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_AC3_RATES_HZ: Final = (48_000, 44_100, 32_000)


def _dolby_audio(head: bytes) -> FileType | None:
    """Recognise AC-3 or E-AC-3 by two frames in a row: a sync word of two bytes alone may be chance."""
    if len(head) < 6 or head[:2] != b"\x0b\x77":
        return None
    version = head[5] >> 3
    if version > 16:
        return None
    if version > 10:
        frame_bytes, demuxer = 2 * (1 + ((head[2] & 7) << 8 | head[3])), "eac3"
    else:
        rate, size = head[4] >> 6, head[4] & 0x3F
        if rate == 3 or size // 2 >= len(_AC3_KBITS):
            return None
        # 1536 samples a frame, in words of 16 bits; at 44.1 kHz odd codes have one word more.
        words = _AC3_KBITS[size // 2] * 1000 * 1536 // (16 * _AC3_RATES_HZ[rate]) + (size & 1 if rate == 1 else 0)
        frame_bytes, demuxer = 2 * words, "ac3"
    return FileType("container", demuxer) if head[frame_bytes : frame_bytes + 2] == b"\x0b\x77" else None


def _mpeg_audio(head: bytes) -> FileType | None:
    """Recognise ADTS or MPEG audio by its frame sync: eleven set bits, then a version and a layer that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return FileType("container", "aac")
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    exists = version != 1 and layer != 0 and bitrate not in {0, 15} and rate != 3
    return FileType("sound", "mp3") if exists else None
