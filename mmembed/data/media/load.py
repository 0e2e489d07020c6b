"""Sources of examples: a manifest row or a file becomes features."""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import soundfile
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.example import LONGEST, Example, ExampleInfo
from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import load_clip
from mmembed.data.media.open import (
    HEAD,
    MediaPart,
    choose_streams,
    media_kind,
    open_media,
    stated_length,
)
from mmembed.data.media.streaming import ADVICE, FeatureBlock, features_of, stream_clip
from mmembed.data.media.temporary_arrays import TemporaryArray
from mmembed.data.untrusted import archives
from mmembed.errors import DataError, MmembedError
from mmembed.features.audio import to_int16
from mmembed.features.text import normalise_transcript
from mmembed.features.video import SMALL_GREY, CropForm, face_crops
from mmembed.io.remote import fetch_file, read_head
from mmembed.streams import STREAMS

ALMOST: Final = 16 << 20  # bytes; what fails with so few left fails for want of memory
LARGEST_MEMBER: Final = 1 << 30  # bytes of media in an archive


@dataclass(frozen=True)
class ProbeResult:
    """What a source is known to hold without decoding it.

    Attributes:
        streams: those it seems to have; None = not opened.
        seconds: None where its header does not say.
        text: the words of its text stream, None without.
    """

    streams: tuple[str, ...] | None
    seconds: Seconds | None
    text: str | None


@dataclass(frozen=True)
class MediaSource:
    """An utterance whose media are to be decoded.

    Attributes:
        utterance: a manifest row.
        folder: where its relative media path starts.
        streams: those wanted.
        face_model: see `mmembed.features.video.face_crops`.
        longest: seconds that it may last; beyond `LONGEST` its features are memory-mapped
            (`mmembed.data.media.temporary_arrays`).
        name: what errors call it; "" = its file, or its key.
        crops: form of the face crops.
    """

    utterance: Utterance
    folder: Path
    streams: tuple[str, ...] = STREAMS
    face_model: Path | None = None
    longest: Seconds = LONGEST
    name: str = ""
    crops: CropForm = SMALL_GREY

    @property
    def key(self) -> str:
        return self.utterance.key

    @property
    def path(self) -> str:
        """Its file, or its key where it has none."""
        return str(self.folder / (self.utterance.media or self.utterance.key))

    @property
    def text(self) -> str | None:
        """Its text stream: the normalised transcript."""
        wanted = "text" in self.streams
        return normalise_transcript(self.utterance.transcript or "") or None if wanted else None

    @property
    def has_features(self) -> bool:
        """Whether its media are a row of precomputed features."""
        return SUFFIX + "#" in (self.utterance.media or "")

    @property
    def is_text(self) -> bool:
        """Whether no media need be opened."""
        return self.utterance.media is None or (
            not {"audio", "video"} & set(self.streams) and not self.has_features
        )

    def load(self) -> Example:
        """Load it in this process.

        Raises:
            DataError: see `load_example`.
        """
        return gather(self.parts())

    def parts(self) -> Generator[FeatureBlock, None, Example]:
        """The example; of a long one, or one with large pictures, the features come before it, part
        by part.
        """
        pictures = not self.is_text and not self.has_features and "video" in self.streams
        try:
            if self.crops == SMALL_GREY or not pictures:
                return load_example(self)
        except DataError as error:
            if error.reason != "too_long" or self.longest <= LONGEST:
                raise
        return (yield from load_parts(self))

    @contextmanager
    def open(self) -> Iterator[tuple[Path, bytes | None]]:
        """Where its file lies, or the bytes of a member of an archive; a URL is fetched."""
        media = self.utterance.media or ""
        archive, _, member = media.rpartition("#")
        if "://" in media:
            file = fetch_file(media)
            path = Path(f"/proc/self/fd/{file.number}")  # stays, whatever becomes of the cache
            try:
                yield path, None
            except DataError as error:
                message = str(error).removeprefix(f"{path}: ")
                raise DataError(media, error.reason, message) from None
        elif archive.endswith(archives.SUFFIXES):
            data = archives.read_member(self.folder / archive, member, LARGEST_MEMBER)
            yield self.folder / media, data
        else:
            yield self.folder / media, None


@dataclass(frozen=True)
class ReadySource:
    """A clip that needs no decoding process: a stored record, arrays in memory, a row that cannot
    be used.

    Attributes:
        key: of the example.
        name: what errors call it.
        load: gives the example, or raises DataError.
        probe: likewise, what is known of it without reading it; None = it is never probed.
        identity: plain JSON by which it differs from others.
    """

    key: str
    name: str
    load: Callable[[], Example]
    probe: Callable[[], ProbeResult] | None = None
    identity: object = None


Source: TypeAlias = MediaSource | ReadySource
"""One clip that may or may not turn out to be readable."""


def gather(parts: Generator[FeatureBlock, None, Example]) -> Example:
    """The example that a generator of its features returns, with these, memory-mapped."""
    arrays = defaultdict[str, TemporaryArray](TemporaryArray)
    while True:
        try:
            part = next(parts)
        except StopIteration as end:
            example: Example = end.value
            whole: dict[str, Any] = {name: array.finish() for name, array in arrays.items()}
            return replace(example, **whole)
        arrays[part.stream].add(part.values)


def load_example(source: MediaSource) -> Example:
    """Decode an utterance of at most `LONGEST` seconds and compute its features.

    The transcript, where there is one, is its text stream. An utterance of text without a letter
    or digit has no stream at all and is an example nevertheless.

    Raises:
        DataError: the media cannot be used, or the utterance has none of the streams.
    """
    utterance, text = source.utterance, source.text
    if source.has_features:
        file, _, row = str(utterance.media).rpartition("#")
        features = read_features(source.folder / file, int(row))
        example = Example(utterance, text=text, features=features)
        example = example.only(source.streams)
        if not example.streams:
            raise _no_streams(source)
        return example
    if source.is_text:
        # A turn such as "..." has no words for an encoder and is a turn of its dialogue still.
        if text is None and not ("text" in source.streams and (utterance.transcript or "").strip()):
            raise _no_streams(source)
        return Example(utterance, text=text)
    with source.open() as (path, data):
        clip = load_clip(
            path,
            start=utterance.start,
            end=utterance.end,
            streams=source.streams,
            data=data,
            crops=source.crops,
        )
    crops = face = None
    if clip.video is not None:
        crops, face = face_crops(clip.video, source.face_model, source.crops)
    audio = to_int16(clip.audio) if clip.audio is not None else None
    info = ExampleInfo(round(clip.seconds, 3), face, clip.notes)
    return Example(utterance, audio=audio, video=crops, text=text, info=info)


def load_parts(source: MediaSource) -> Generator[FeatureBlock, None, Example]:
    """The features of media that are too long or too large for `load_example`, part by part.

    Yields:
        See `mmembed.data.media.streaming.features_of`.

    Returns:
        The example without them.

    Raises:
        DataError: the media cannot be used; part of it may have been yielded.
    """
    utterance = source.utterance
    with source.open() as (path, data):
        span, wanted = (utterance.start, utterance.end), (source.streams, source.longest)
        advice = ADVICE if source.longest > LONGEST else MediaPart.advice
        part = MediaPart(path, *span, *wanted, data, advice, crops=source.crops)
        size = path.stat().st_size if data is None else len(data)
        info = yield from features_of(
            stream_clip(part), part.notes, source.face_model, size, source.crops
        )
    return Example(utterance, text=source.text, info=info)


def probe(source: MediaSource) -> ProbeResult:
    """What the header of a file says: nothing is decoded, so much damage stays unseen.

    Of a file behind a URL only the first bytes are fetched.

    Raises:
        DataError: as `load_example`, as far as a header can tell.
    """
    utterance = source.utterance
    if source.is_text or source.has_features:
        return ProbeResult(load_example(source).streams, None, source.text)
    media, start, end = str(utterance.media), utterance.start, utterance.end
    if "://" in media:
        media_kind(Path(media), read_head(media, HEAD)[0])
        return ProbeResult(None, None if end is None else end - start, source.text)
    with source.open() as (path, data):
        part = MediaPart(path, start, end, source.streams, source.longest, data)
        with open_media(part, 0.0) as file:
            if isinstance(file, soundfile.SoundFile):
                found: tuple[str, ...] = ("audio",)
            else:
                found = tuple(stream.type for stream in choose_streams(part, file))
            seconds = stated_length(file)
    if not set(found) & set(source.streams):
        raise part.no_streams()
    ends = [last for last in (seconds, end) if last is not None]
    lasts = min(ends) - start if ends else None
    if lasts is not None and lasts <= 0:
        raise DataError(str(path), "too_short", f"nothing lies from {start} s on")
    if lasts is not None:
        part.check_length(lasts)
    words = ("text",) if source.text else ()
    return ProbeResult((*found, *words), lasts, source.text)


def _no_streams(source: MediaSource) -> DataError:
    return DataError(source.key, "no_streams", f"has no {' or '.join(source.streams)}")


def replies(
    source: MediaSource, probing: bool
) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Head and arrays of each message: parts of a long clip, then the clip or why there is none."""
    item, last = source.path, False
    no_memory = "memory", f"{item}: needs more memory than one clip may take"
    try:
        if probing:
            result = probe(source)
            yield {"probe": [result.streams, result.seconds]}, {}
            return
        parts = source.parts()
        while True:
            part = next(parts)
            yield {"size": part.size}, {part.stream: part.values}
    except StopIteration as end:
        example: Example = end.value
        streams = {"audio": example.audio, "video": example.video}
        arrays = {name: values for name, values in streams.items() if values is not None}
        yield {"info": example.info.to_json()}, {**arrays, **example.features}
        return
    except DataError as error:
        item, reason, message = error.item, error.reason, str(error)
        if (
            reason == "damaged"
            and mapped_bytes() + ALMOST > resource.getrlimit(resource.RLIMIT_DATA)[0]
        ):
            reason, message, last = *no_memory, True
    except MmembedError as error:  # a damaged file of features, a URL that is not allowed
        reason, message = "unusable", str(error)
    except MemoryError:
        # What it holds by now may never come back: a new process starts empty.
        reason, message, last = *no_memory, True
    except Exception as error:  # of a library that met what its authors had not thought of
        reason, message = "damaged", f"{item}: cannot be decoded ({type(error).__name__}: {error})"
    message = " ".join(message.removeprefix(f"{item}: ").split())
    yield {"item": item, "reason": reason, "message": message, "last": last}, {}


def mapped_bytes() -> int:
    """Bytes of data that this process has mapped; libraries alone take hundreds of megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) << 10
