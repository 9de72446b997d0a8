"""Recognition of media by their first bytes; a client's file name and content type are never believed.

Only formats for which ``sniff`` returns a ``FileType`` are handed to a decoder. Playlists (``.m3u8``, ffconcat, DASH,
SDP) are texts that name other files: they are recognised in order to refuse them by name, never to follow them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

from dimml.media.decoders.framing.mpeg_audio import HEADER_BYTES, header_at
from dimml.media.decoders.framing.resync import find_stream
from dimml.media.decoders.framing.transport_stream import carries_content, packets_from

#: Bytes from a file's start that ``sniff`` and ``unread_formats.unread_format`` look at.
HEAD_BYTES: Final = 4096

#: Where the first packet of a transport stream lies, and how far it is to the next: M2TS has four bytes before each.
_TS_PLACES: Final = ((0, 188), (4, 192))
_TS_PACKETS: Final = 3
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

    ``container`` is read through PyAV, ``sound`` through soundfile first, ``image`` by the libraries of
    ``decoders.images``, and ``flow`` is an array of displacements.
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
    if any(packets_from(head, *place, _TS_PACKETS, faults=True) for place in _TS_PLACES):
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
    # The GUID that Sonic Foundry wrote for RIFF. libsndfile (1.2.2) takes floats of an extensible format for integers.
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), FileType("container", "w64")),
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
    if file_type is not None and file_type.demuxer == "mpegts":
        places = [place for place in _TS_PLACES if packets_from(head, *place, _TS_PACKETS, faults=True)]
        if not any(carries_content(file, *place) for place in places):
            return None
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


def _is_program_stream(head: bytes) -> bool:
    """Whether a pack header of MPEG-1 or MPEG-2 comes first (ISO 11172-1, 2.4.3.2; ISO 13818-1, 2.5.3.3)."""
    return len(head) > 4 and head.startswith(b"\x00\x00\x01\xba") and (head[4] & 0xF1 == 0x21 or head[4] & 0xC4 == 0x44)


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
    if len(head) >= HEADER_BYTES and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return FileType("container", "aac")
    return FileType("sound", "mp3") if header_at(head, 0) is not None else None
