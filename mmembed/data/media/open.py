"""What kind of media a file is, and the decoder that opens it.

FFmpeg tells the kind by the content and reads most of them. Sound of two channels at most in wav,
flac, ogg and mp3 files is read by libsndfile, which finds any sample at once, but only where it
sees all that the file holds: it believes the number of samples in a header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import av
import soundfile
from av.container import InputContainer

from mmembed.config import Seconds
from mmembed.data.media.repair import open_repaired
from mmembed.errors import DataError

HEAD: Final = 192  # bytes that tell the kind of most files

SIGNATURES: Final = (
    (0, b"fLaC", "flac"), (0, b"OggS", "ogg"), (8, b"WAVE", "wav"), (8, b"AVI ", "avi"),
    (0, b"ID3", "mp3"), (4, b"ftyp", "mov"), (4, b"moov", "mov"), (4, b"mdat", "mov"),
    (4, b"wide", "mov"), (4, b"free", "mov"), (4, b"skip", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"\0\0\1\xba", "mpeg"),
    (0, b"\0\0\1\xb3", "mpegvideo"), (0, b"FLV\x01", "flv"), (0, b"0&\xb2u", "asf"),
    (8, b"AIFF", "aiff"), (8, b"AIFC", "aiff"), (0, b".snd", "au"), (0, b"caff", "caf"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"), (0, b"NIST_1A", "nistsphere"), (0, b"#!AMR", "amr"),
    (0, b"wvPK", "wv"), (0, b"TTA1", "tta"), (0, b"MAC ", "ape"), (0, b"MPCK", "mpc8"),
    (0, b".RMF", "rm"), (0, b"\x06\x0e\x2b\x34", "mxf"), (0, b"DKIF", "ivf"),
    (0, b"Creative Voice File", "voc"), (0, b"\x0b\x77", "ac3"), (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"\0\0\0\1", "h264"), (0, b"\0\0\1", "h264"),
)  # fmt: skip
"""Offset, bytes and demuxer of kinds that are told by their first bytes. Others are, too, if FFmpeg
finds out what they are."""
NO_MEDIA: Final = (
    b"PK\3\4",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"%PDF",
    b"\x1f\x8b",
    b"#EXTM3U",
)
DEMUXERS: Final = (
    "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "asf_o", "au", "av1", "avi",
    "avs2", "avs3", "caf", "cavsvideo", "dirac", "dsf", "dts", "dtshd", "dv", "eac3", "epaf",
    "flac", "flv", "gxf", "h261", "h263", "h264", "hevc", "ircam", "ivf", "loas", "m4v",
    "matroska", "mjpeg", "mlp", "mmf", "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "mpegvideo",
    "mxf", "nistsphere", "nut", "nuv", "obu", "ogg", "oma", "pva", "qcp", "qoa", "rm", "sds",
    "shn", "sox", "tak", "truehd", "tta", "vc1", "voc", "vqf", "vvc", "w64", "wav", "wtv", "wv",
    "xwma", "yuv4mpegpipe",
)  # fmt: skip
"""The demuxers that may open a file: none that reads a text or a playlist, or opens other files."""
CHUNKED: Final = ("wav", "aiff", "au", "caf", "w64")
MOST_SAMPLES: Final = 1 << 40  # of one file; headers that do not know claim more
_TAG_FRAMES: Final = 4  # of mp3 files; encoders begin and end with as many that are no sound
_FIRST_PAGE: Final = re.compile(rb"OggS\0[\2\3\6\7]")  # of a stream, by its flags (RFC 3533, 6)


class Opened(NamedTuple):
    """A file that is open.

    Attributes:
        file: in the decoder for its kind.
        notes: what of it that decoder passes over.
    """

    file: soundfile.SoundFile | InputContainer
    notes: tuple[str, ...] = ()


@contextmanager
def open_media(
    path: Path, data: bytes | None = None, end: Seconds | None = None
) -> Iterator[Opened]:
    """Open a file of any kind; what its decoder finds wrong, now or later, is a DataError.

    Args:
        path: of the file.
        data: its bytes where it is part of another; `path` is then only its name.
        end: of the part that is wanted; None = all.

    Raises:
        DataError: as `media_kind`.
    """
    kind = media_kind(path, data)
    try:
        with ExitStack() as stack:
            repaired = open_repaired(path, data) if kind in CHUNKED else None
            if repaired is not None:
                stack.enter_context(repaired)
            yield _open(stack, path, data, kind, repaired, end)
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        # FFmpeg's whole message would name the file again.
        raise damaged(path, getattr(error, "strerror", None) or str(error)) from None


def media_kind(path: Path, data: bytes | None = None, size: int | None = None) -> str | None:
    """The kind of a file by its first bytes, None where only FFmpeg can tell; nothing is decoded.

    Args:
        path: of the file.
        data: its bytes, or the first `HEAD` of them, where it is no file here.
        size: bytes of the whole file, where `data` is its beginning.

    Raises:
        DataError: with reason "missing", "unreadable", "empty" or "not_media".
    """
    try:
        if data is not None:
            head = data[:HEAD]
        else:
            if path.exists() and not path.is_file():
                raise DataError(str(path), "not_media", "not a file")
            with path.open("rb") as file:
                head = file.read(HEAD)
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such file") from None
    except (OSError, ValueError) as error:  # no permission, an impossible name
        raise DataError(str(path), "unreadable", f"cannot be opened ({error})") from None
    if not head:
        raise DataError(str(path), "empty", "the file is empty")
    for offset, signature, kind in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return kind
    if head.startswith(NO_MEDIA) or not any(byte < 9 or byte >= 127 for byte in head):
        raise _no_media(path)
    return None


def damaged(path: Path, why: str) -> DataError:
    """The error of a file that cannot be decoded."""
    return DataError(str(path), "damaged", f"cannot be decoded ({' '.join(why.split())[:80]})")


def _no_media(path: Path) -> DataError:
    return DataError(
        str(path), "not_media", "not a media file of a known kind (its first bytes say so)"
    )


def _open(
    stack: ExitStack,
    path: Path,
    data: bytes | None,
    kind: str | None,
    repaired: BinaryIO | None,
    end: Seconds | None,
) -> Opened:
    def source() -> Any:
        if repaired is not None:
            repaired.seek(0)
            return repaired
        # FFmpeg takes "12:30.mp4" for a protocol.
        return str(path.absolute()) if data is None else BytesIO(data)

    def container() -> InputContainer:
        options = {"protocol_whitelist": "file", "format_whitelist": ",".join(DEMUXERS)}
        opened: InputContainer = av.open(source(), "r", options=options, metadata_errors="ignore")
        return stack.enter_context(opened)

    if kind == "wav" or (kind == "ogg" and _is_one_stream(path, data)):
        file = _sound_file(stack, source())
        if file is not None:
            return Opened(file)
    try:
        opened = container()
    except av.FFmpegError:
        if kind is None:
            raise _no_media(path) from None
        raise
    if opened.format.name in ("flac", "mp3") and len(opened.streams.audio) == 1:
        file = _sound_file(stack, source())
        if file is not None:
            if _sees_all(opened, file, end):
                covers = (f"{stream_name(cover)} is a cover" for cover in opened.streams.video)
                return Opened(file, tuple(covers))
            opened = container()  # once more from the beginning
    return Opened(opened)


def _sound_file(stack: ExitStack, source: Any) -> soundfile.SoundFile | None:
    """The file in libsndfile; None if it cannot read it, or not tell where its channels belong."""
    try:
        # A name may be no text.
        file = soundfile.SoundFile(os.fsencode(source) if isinstance(source, str) else source)
    except soundfile.LibsndfileError:
        return None  # a codec that only FFmpeg knows, or damage that it will name
    if file.channels > 2 or (file.channels == 2 and file.format == "WAVEX"):
        file.close()
        return None
    return stack.enter_context(file)


def _sees_all(container: InputContainer, file: soundfile.SoundFile, end: Seconds | None) -> bool:
    """Whether libsndfile sees all samples up to `end`, or more than there are, which is damage."""
    if not 0 < file.frames < MOST_SAMPLES:
        return False
    # Then a header tells of the silence that the encoder put before the sound, and the length.
    is_told = file.format == "FLAC" or bool(container.start_time)
    if is_told and end is not None and end * file.samplerate <= file.frames:
        return True
    stream = container.streams.audio[0]
    times = [packet.duration or 0 for packet in container.demux(stream)]
    there: int = round(sum(times) * (stream.time_base or 0) * file.samplerate)
    frames: int = file.frames
    if file.format == "FLAC":
        return there <= frames
    slack: int = _TAG_FRAMES * stream.codec_context.frame_size
    return there < frames + slack if is_told else there == frames


def _is_one_stream(path: Path, data: bytes | None) -> bool:
    """Whether an ogg file holds one stream, and no other behind or beside it."""
    begun, tail = 0, b""
    with path.open("rb") if data is None else BytesIO(data) as file:
        while block := file.read(1 << 20):
            begun += len(_FIRST_PAGE.findall(tail + block))
            if begun > 1:
                return False
            tail = block[-5:]
    return True


def stream_name(stream: av.stream.Stream) -> str:
    """What notes call a stream: its kind, number and codec."""
    context = stream.codec_context
    codec = f" ({context.name})" if context is not None else ""
    return f"{stream.type} stream {stream.index}{codec}"


class Chosen(NamedTuple):
    """The streams of a container that are decoded.

    Attributes:
        streams: at most one of sound and one of pictures.
        unknown: "audio" and "video", where all streams of that kind have codecs nobody knows.
        notes: which others there are, and why they are passed over.
    """

    streams: tuple[Any, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def choose_streams(container: InputContainer, wanted: Sequence[str]) -> Chosen:
    """Choose as a player does: of each kind the default one, else the first that can be decoded."""
    chosen, unknown, notes = [], [], []
    others = [stream for stream in container.streams if stream.type not in ("audio", "video")]
    notes += [f"{stream_name(stream)} is passed over" for stream in others]
    for kind in ("audio", "video"):
        if kind not in wanted:
            continue
        streams = [stream for stream in container.streams if stream.type == kind]
        notes += [f"{stream_name(cover)} is a cover" for cover in streams if _is_cover(cover)]
        rivals = sorted((s for s in streams if not _is_cover(s)), key=_rank)
        known = [stream for stream in rivals if stream.codec_context is not None]
        chosen += known[:1]
        if rivals and not known:
            unknown.append(kind)
        for stream in rivals:
            if stream.codec_context is None:
                notes.append(f"{stream_name(stream)} is passed over: no decoder knows it")
            elif stream is not known[0]:
                why = "is the default" if _is_default(known[0]) else "comes first"
                first = f"stream {known[0].index} {why}"
                notes.append(f"{stream_name(stream)} is passed over: {first}")
    return Chosen(tuple(chosen), tuple(unknown), tuple(notes))


def _is_cover(stream: Any) -> bool:
    flags = av.stream.Disposition
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails))


def _is_default(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.default)


def _rank(stream: Any) -> tuple[bool, bool, int]:
    """Least for the one that a player takes: no commentary, the default, the first."""
    flags = av.stream.Disposition
    aside = flags.comment | flags.visual_impaired | flags.descriptions | flags.dependent
    return bool(stream.disposition & aside), not _is_default(stream), stream.index
