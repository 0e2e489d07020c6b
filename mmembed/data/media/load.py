"""From a manifest row or a file to features, and from features to a shard's record and back."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.example import Example
from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import MAX_SECONDS, load_clip, stream_clip
from mmembed.data.media.streaming import FeatureBlock, features_of, make_notes
from mmembed.data.untrusted import archives
from mmembed.errors import DataError
from mmembed.features.audio import log_mel
from mmembed.features.text import normalise_transcript
from mmembed.features.video import face_crops
from mmembed.io.remote import fetch_file

LARGEST_MEMBER: Final = 1 << 30  # bytes of media in an archive


def load_example(
    utterance: Utterance,
    folder: Path,
    streams: Sequence[str] = STREAMS,
    face_model: Path | None = None,
) -> Example:
    """Decode an utterance and compute its features.

    The transcript, where there is one, is its text stream. An utterance of text without a letter
    or digit has no stream at all and is an example nevertheless.

    Args:
        utterance: a manifest row.
        folder: of the manifest; relative media paths start there.
        streams: those wanted; nothing is decoded for the others.
        face_model: see `face_crops`.

    Raises:
        DataError: the media cannot be used, or the utterance has none of the streams.
    """
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    if utterance.media is not None and SUFFIX + "#" in utterance.media:
        file, _, row = utterance.media.rpartition("#")
        features = read_features(folder / file, int(row))
        example = Example(utterance, text=text, features=features).only(tuple(streams))
        if not example.streams:
            raise DataError(utterance.key, "no_streams", f"has no {' or '.join(streams)}")
        return example
    if utterance.media is None or not {"audio", "video"} & set(streams):
        # A turn such as "..." has no words for an encoder and is a turn of its dialogue still.
        if text is None and not ("text" in streams and (utterance.transcript or "").strip()):
            raise DataError(utterance.key, "no_streams", f"has no {' or '.join(streams)}")
        return Example(utterance, text=text)
    with _located(utterance.media, folder) as (path, data):
        clip = load_clip(path, start=utterance.start, end=utterance.end, streams=streams, data=data)
    crops = face = None
    if clip.video is not None:
        crops, face = face_crops(clip.video, face_model)
    audio = log_mel(clip.audio) if clip.audio is not None else None
    notes = make_notes(clip.seconds, clip.notes, face)
    return Example(utterance, audio=audio, video=crops, text=text, notes=notes)


def load_parts(
    utterance: Utterance,
    folder: Path,
    streams: Sequence[str] = STREAMS,
    face_model: Path | None = None,
    *,
    longest: Seconds = MAX_SECONDS,
) -> Generator[FeatureBlock, None, Example]:
    """The features of media that `load_example` refuses as too long, part by part.

    Args:
        utterance: see `load_example`, as for all arguments.
        folder: likewise.
        streams: likewise.
        face_model: likewise.
        longest: the most that it may last.

    Yields:
        See `mmembed.data.media.streaming.features_of`.

    Returns:
        The example without them.

    Raises:
        DataError: the media cannot be used; part of it may have been yielded.
    """
    assert utterance.media is not None
    with _located(utterance.media, folder) as (path, data):
        blocks = stream_clip(
            path,
            start=utterance.start,
            end=utterance.end,
            streams=streams,
            data=data,
            longest=longest,
        )
        parts = features_of(blocks, face_model)
        size = path.stat().st_size if data is None else len(data)
        while True:
            try:
                part = next(parts)
            except StopIteration as end:
                notes = end.value
                break
            yield part._replace(size=size)
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    return Example(utterance, text=text, notes=notes)


@contextmanager
def _located(media: str, folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    """Where a file lies, or the bytes of a member of an archive; what a URL leads to is fetched."""
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
        yield folder / media, archives.read_member(folder / archive, member, LARGEST_MEMBER)
    else:
        yield folder / media, None
