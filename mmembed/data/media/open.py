"""What kind of media a file is, the decoder that opens it, and the streams that are decoded.

FFmpeg tells the kind by the content and reads most of them. Sound of two channels at most in wav,
flac, ogg and mp3 files is read by libsndfile, which finds any sample at once, but only where it
sees all that the file holds: it believes the number of samples in a header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import av
import numpy as np
import soundfile
from av.container import InputContainer

from mmembed.config import Seconds
from mmembed.data.example import LONGEST
from mmembed.data.media.repair import open_repaired
from mmembed.errors import DataError
from mmembed.features.video import SMALL_GREY, CropForm
from mmembed.streams import STREAMS

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


BLOCK: Final = 12  # whole seconds of a long recording that are decoded at once
BEHIND_END: Final[Seconds] = 0.1  # that the end of a part may lie behind the end of the file unsaid

MediaFile: TypeAlias = "soundfile.SoundFile | InputContainer"


@dataclass
class MediaPart:
    """The part of a file that is decoded, and what there is to say of it.

    Attributes:
        path: of the file, or what errors call it.
        start: seconds, from time 0 of the container.
        end: seconds; None = the end of the file.
        streams: those wanted.
        longest: seconds that the part may last.
        data: the bytes of the file where it is part of another.
        advice: what to do where it lasts longer.
        crops: what will be cut from the pictures.
        notes: what was passed over, and what was not taken as it is.
    """

    path: Path
    start: Seconds = 0.0
    end: Seconds | None = None
    streams: Sequence[str] = STREAMS
    longest: Seconds = LONGEST
    data: bytes | None = None
    advice: str = "give start and end"
    crops: CropForm = SMALL_GREY
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.start < (np.inf if self.end is None else self.end):
            message = f"nothing lies from {self.start} s to {self.end} s"
            raise DataError(str(self.path), "too_short", message)
        if self.end is not None:
            self.check_length(self.end - self.start)

    @property
    def stop(self) -> Seconds:
        """Where decoding ends at the latest."""
        return self.start + self.longest + 1.0 if self.end is None else self.end

    def check_length(self, seconds: Seconds) -> None:
        if seconds > self.longest:
            message = f"lasts {seconds:.0f} s, at most {self.longest:.0f} s at once"
            raise DataError(str(self.path), "too_long", f"{message}: {self.advice}")

    def note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def note_end(self, seconds: Seconds) -> None:
        """Say how much of the part lies behind the end of the file; raise if all does."""
        if not seconds:
            where = f" from {self.start} s on" if self.start else ""
            message = f"nothing to decode{where}: no sample and no picture"
            raise DataError(str(self.path), "too_short", message)
        if self.end is not None and self.end - self.start - seconds > BEHIND_END:
            self.note(
                f"the file ends at {self.start + seconds:.2f} s, before the end that was given"
            )

    def no_streams(self) -> DataError:
        """The error of a file without any of the streams."""
        streams = " or ".join(stream for stream in ("audio", "video") if stream in self.streams)
        return DataError(str(self.path), "no_streams", f"holds no {streams}")


@contextmanager
def open_media(part: MediaPart, end: Seconds | None = None) -> Iterator[MediaFile]:
    """Open a file in the decoder for its kind; what that finds wrong, now or later, is a DataError.

    Args:
        part: what is wanted of the file; what the decoder passes over is noted there.
        end: of what will be read; None = all.

    Raises:
        DataError: as `media_kind`.
    """
    kind = media_kind(part.path, part.data)
    try:
        with ExitStack() as stack:
            repaired = open_repaired(part.path, part.data) if kind in CHUNKED else None
            if repaired is not None:
                stack.enter_context(repaired)
            yield _open(stack, part, kind, repaired, end)
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        # FFmpeg's whole message would name the file again.
        raise damaged(part.path, getattr(error, "strerror", None) or str(error)) from None


def stated_length(file: MediaFile) -> Seconds | None:
    """How long a file is, as its header says; None where it does not say."""
    if isinstance(file, soundfile.SoundFile):
        return float(file.frames / file.samplerate)
    return None if file.duration is None else file.duration / av.time_base


def media_kind(path: Path, data: bytes | None = None) -> str | None:
    """The kind of a file by its first bytes, None where only FFmpeg can tell; nothing is decoded.

    Args:
        path: of the file.
        data: its bytes, or the first `HEAD` of them, where it is no file here.

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
    part: MediaPart,
    kind: str | None,
    repaired: BinaryIO | None,
    end: Seconds | None,
) -> MediaFile:
    path, data = part.path, part.data

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
            return file
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
                part.note(*(f"{stream_name(cover)} is a cover" for cover in opened.streams.video))
                return file
            opened = container()  # once more from the beginning
    return opened


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


def choose_streams(part: MediaPart, container: InputContainer) -> list[Any]:
    """Choose as a player does: of each kind the default one, else the first that can be decoded.

    Returns:
        The streams of a container that are decoded: at most one of audio and one of video.

    Raises:
        DataError: there is none.
    """
    chosen, unknown = [], []
    others = [stream for stream in container.streams if stream.type not in ("audio", "video")]
    part.note(*(f"{stream_name(stream)} is passed over" for stream in others))
    for kind in ("audio", "video"):
        if kind not in part.streams:
            continue
        streams = [stream for stream in container.streams if stream.type == kind]
        part.note(*(f"{stream_name(cover)} is a cover" for cover in streams if _is_cover(cover)))
        rivals = sorted((s for s in streams if not _is_cover(s)), key=_rank)
        known = [stream for stream in rivals if stream.codec_context is not None]
        chosen += known[:1]
        if rivals and not known:
            unknown.append(kind)
        for stream in rivals:
            if stream.codec_context is None:
                part.note(f"{stream_name(stream)} is passed over: no decoder knows it")
            elif stream is not known[0]:
                why = "is the default" if _is_default(known[0]) else "comes first"
                first = f"stream {known[0].index} {why}"
                part.note(f"{stream_name(stream)} is passed over: {first}")
    if not chosen and unknown:
        raise damaged(part.path, f"no decoder for its {' and '.join(unknown)}")
    if not chosen:
        raise part.no_streams()
    return chosen


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
