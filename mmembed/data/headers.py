"""What can be told of a clip without decoding it; much damage stays unseen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import av
import soundfile

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data import archives
from mmembed.data.example import Example, Utterance
from mmembed.data.examples import LARGEST_MEMBER, load_example
from mmembed.data.features import SUFFIX
from mmembed.data.media import HEAD, LONGEST, LONGEST_RECORDING, SOUND_KINDS, media_kind
from mmembed.data.remote import read_head
from mmembed.errors import DataError
from mmembed.features.text import normalise_transcript


@dataclass(frozen=True)
class Header:
    """What a file announces.

    Attributes:
        streams: "audio" and "video", those it has of the ones wanted.
        seconds: of the part asked for; None where the file does not say.
    """

    streams: tuple[str, ...]
    seconds: Seconds | None


def look_at(
    utterance: Utterance,
    folder: Path,
    streams: Sequence[str] = STREAMS,
    *,
    long: bool = False,
) -> Example:
    """An utterance as an example without sound and pictures.

    Its notes hold "streams", those it seems to have, and "seconds", None where its header does not
    say. Of a file behind a URL only the first bytes are fetched, and "streams" is None.

    Raises:
        DataError: as `mmembed.data.examples.load_example`, as far as a header can tell.
    """
    media = utterance.media
    if media is None or not {"audio", "video"} & set(streams) or SUFFIX + "#" in media:
        example = load_example(utterance, folder, streams)
        held = {"streams": list(example.streams), "seconds": None}
        return replace(example, features={}, notes=held)
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    start, end = utterance.start, utterance.end
    if "://" in media:
        media_kind(Path(media), *read_head(media, HEAD))
        lasts = None if end is None else end - start
        return Example(utterance, text=text, notes={"streams": None, "seconds": lasts})
    archive, _, member = media.rpartition("#")
    data = None
    if archive.endswith(archives.SUFFIXES):
        data = archives.read_member(folder / archive, member, LARGEST_MEMBER)
    longest = LONGEST_RECORDING if long else LONGEST
    header = read_header(
        folder / media, start=start, end=end, streams=streams, data=data, longest=longest
    )
    found = [*header.streams, *(["text"] if text else [])]
    return Example(utterance, text=text, notes={"streams": found, "seconds": header.seconds})


def read_header(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
    longest: Seconds = LONGEST,
) -> Header:
    """Open a file as `mmembed.data.media.load_clip` does, and read its header.

    Raises:
        DataError: as `load_clip`, as far as a header can tell.
    """
    kind = media_kind(path, data)
    try:
        found, seconds = _sound(path, data) if kind in SOUND_KINDS else ((), None)
        if not found:
            found, seconds = _container(path, kind, data)
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        why = " ".join(str(error).split())[:80]
        raise DataError(str(path), "damaged", f"cannot be opened ({why})") from None
    held = tuple(stream for stream in found if stream in streams)
    if not held:
        wanted = " or ".join(stream for stream in ("audio", "video") if stream in streams)
        raise DataError(str(path), "no_streams", f"holds no {wanted}")
    ends = [last for last in (seconds, end) if last is not None]
    lasts = min(ends) - start if ends else None
    if lasts is not None and lasts <= 0:
        raise DataError(str(path), "too_short", f"nothing lies from {start} s on")
    if lasts is not None and lasts > longest:
        message = f"lasts {lasts:.0f} s, at most {longest:.0f} s at once: give start and end"
        raise DataError(str(path), "too_long", message)
    return Header(held, lasts)


def _sound(path: Path, data: bytes | None) -> tuple[tuple[str, ...], Seconds | None]:
    """() where only FFmpeg can tell."""
    try:
        with soundfile.SoundFile(os.fsencode(path) if data is None else BytesIO(data)) as file:
            return ("audio",), file.frames / file.samplerate
    except soundfile.LibsndfileError:
        return (), None


def _container(path: Path, kind: str, data: bytes | None) -> tuple[tuple[str, ...], Seconds | None]:
    source = str(path.absolute()) if data is None else BytesIO(data)
    options = {"protocol_whitelist": "file"}
    with av.open(source, "r", format=kind, options=options, metadata_errors="ignore") as file:
        cover = av.stream.Disposition.attached_pic
        films = any(not film.disposition & cover for film in file.streams.video)
        has = {"audio": bool(file.streams.audio), "video": films}
        seconds = None if file.duration is None else file.duration / av.time_base
        return tuple(stream for stream, there in has.items() if there), seconds
