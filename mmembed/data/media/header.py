"""What can be told of a clip without decoding it; much damage stays unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import soundfile

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.example import Example
from mmembed.data.feature_files import SUFFIX
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import LONGEST
from mmembed.data.media.load import LARGEST_MEMBER, load_example
from mmembed.data.media.open import HEAD, choose_streams, media_kind, open_media
from mmembed.data.untrusted import archives
from mmembed.errors import DataError
from mmembed.features.text import normalise_transcript
from mmembed.io.remote import read_head


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
    longest: Seconds = LONGEST,
) -> Example:
    """An utterance as an example without sound and pictures.

    Its notes hold "streams", those it seems to have, and "seconds", None where its header does not
    say. Of a file behind a URL only the first bytes are fetched, and "streams" is None.

    Raises:
        DataError: as `mmembed.data.media.load.load_example`, as far as a header can tell.
    """
    media = utterance.media
    if media is None or not {"audio", "video"} & set(streams) or SUFFIX + "#" in media:
        example = load_example(utterance, folder, streams)
        held = {"streams": list(example.streams), "seconds": None}
        return replace(example, features={}, notes=held)
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    start, end = utterance.start, utterance.end
    if "://" in media:
        media_kind(Path(media), read_head(media, HEAD)[0])
        lasts = None if end is None else end - start
        return Example(utterance, text=text, notes={"streams": None, "seconds": lasts})
    archive, _, member = media.rpartition("#")
    data = None
    if archive.endswith(archives.SUFFIXES):
        data = archives.read_member(folder / archive, member, LARGEST_MEMBER)
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
    """Open a file as `mmembed.data.media.decode.load_clip` does, and read its header.

    Raises:
        DataError: as `load_clip`, as far as a header can tell.
    """
    with open_media(path, data, 0.0) as opened:
        file = opened.file
        if isinstance(file, soundfile.SoundFile):
            found: tuple[str, ...] = ("audio",)
            seconds: Seconds | None = file.frames / file.samplerate
        else:
            found = tuple(stream.type for stream in choose_streams(file, streams).streams)
            seconds = None if file.duration is None else file.duration / av.time_base
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
