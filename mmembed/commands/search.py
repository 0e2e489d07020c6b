"""Find the embeddings nearest to a clip, a text or a key.

Examples:
    mmembed search embeddings/audio+video clip.mp4 --encoder demo/pretrain/encoder
    mmembed search embeddings/audio+video talkers-s00-003 --split test --html nearest.html

The search is exact, by the cosine of the pooled vectors. The first search writes a copy of the
vectors beside the shards, `vectors.arrow`, which later ones map. Among millions of vectors,
`--approximate` takes a few milliseconds, but may miss some.

A query is embedded from those streams of the folder that it has. If some are missing, cosines are
lower and compare only what both have in common; a message says so. A query without any stream of
the folder, such as a text in a folder of audio, is refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from mmembed.data.folders import MEDIA_SUFFIXES
from mmembed.errors import UsageError, printable
from mmembed.io.json import dumps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmembed.embeddings.search import EmbeddingSearch, SearchResult

By = Literal["clip", "text", "key"]


@dataclass(frozen=True)
class Search:
    """Where, and for what.

    Attributes:
        folder: Folder of embedding shards of one stream subset.
        query: A media file, a text, or the key of a clip in the folder.
        by: Kind of the query. By default an existing file is a clip, a key of the folder is a key,
            anything else is a text.
        k: Number of results.
        approximate: Search only in the nearest clusters of vectors. The first such search makes
            them, with faiss.
        encoder: The encoder that made the embeddings, as `mmembed extract --encoder` names it.
            Clips and texts need it.
        text: Words spoken in the clip, if the embeddings use text.
        face_model: YuNet's ONNX file, if the faces of the encoder were found with it.
        label: Only clips with this category, or with this emotion present.
        speaker: Only clips of this speaker.
        split: Only clips of this split.
        json: Print one JSON object for each result instead of a table.
        html: Also write an HTML page with faces and words to this file, from the prepared shards of
            the folder if these are still at the same path.
    """

    folder: tyro.conf.Positional[Path]
    query: tyro.conf.Positional[str]
    by: By | None = None
    k: int = 10
    approximate: bool = False
    encoder: tuple[str, ...] = ()
    text: str | None = None
    face_model: Path | None = None
    label: str | None = None
    speaker: str | None = None
    split: str | None = None
    json: bool = False
    html: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each clip found, nearest first."""
    settings = tyro.cli(Search, prog="mmembed search", args=argv, description=__doc__)
    from mmembed.embeddings.search import EmbeddingSearch, Sources

    if settings.k < 1:
        raise UsageError(f"--k {settings.k}: at least 1")
    search = EmbeddingSearch.open(settings.folder, approximate=settings.approximate)
    among = search.select(settings.label, settings.speaker, settings.split)
    by = settings.by or _guess(search, settings.query)
    if by == "key":
        row = search.row_of(settings.query)
        if row is None:
            raise UsageError(f"{settings.folder}: holds no clip with the key {settings.query!r}")
        hits = search.nearest_to(row, settings.k, among)
    else:
        hits = search.nearest(_embedded(settings, by, search), settings.k, among)
    embeddings, with_faces = search.embeddings, settings.html is not None
    rows, crops = Sources(embeddings.metadata).describe(embeddings, hits, faces=with_faces)
    if settings.json:
        for one in rows:
            print(dumps(asdict(one)))
    else:
        print("\n".join(_as_text(rows)), flush=True)
    if settings.html is not None:
        from mmembed.report.search import write_nearest  # draws: takes a second to import

        of = len(search.embeddings) if among is None else int(among.sum())
        about = f"The {len(rows)} of {of:,} clips in {settings.folder} nearest to this {by}."
        head = ("rank", "cosine", "key", "speaker", "split", "streams", "labels", "text")
        cells = [_cells(one) for one in rows]
        write_nearest(settings.query, about, head, cells, crops, settings.html)
        print(printable(str(settings.html)), file=sys.stderr)


def _guess(search: EmbeddingSearch, query: str) -> By:
    if os.path.isfile(query):
        return "clip"
    if search.row_of(query) is not None:
        return "key"
    if Path(query).suffix.lower() in MEDIA_SUFFIXES:
        raise UsageError(f"{query}: no such file; --by text searches for these words")
    return "text"


def _embedded(settings: Search, by: By, search: EmbeddingSearch) -> NDArray[np.float32]:
    """(W,) the vector of a clip or a text."""
    from mmembed.features.text import normalise_transcript

    if not settings.encoder:
        raise UsageError(f"a {by} has to be embedded; name the encoder, --encoder DIR")
    if settings.text is not None and by == "text":
        raise UsageError("--text gives the words of a clip; the query is a text itself")
    from mmembed.embedder import Embedder  # reads torch: takes a second to import

    embedder = Embedder.from_pretrained(settings.encoder, face_model=settings.face_model)
    search.check_encoder(embedder.sha256, " ".join(settings.encoder))
    if by == "text":
        clip: Mapping[str, str | None] = {"text": settings.query}
        if not normalise_transcript(settings.query):
            raise UsageError(f"{settings.query!r}: holds no word")
    else:
        clip = {"path": settings.query, "text": settings.text}
    (example,) = embedder.read([clip])
    query, note = search.comparable(example)
    if note is not None:
        print(f"note: {note}", file=sys.stderr)
    return embedder.encode([query]).pooled[0].numpy()


def _cells(row: SearchResult) -> list[str]:
    values: Mapping[str, Any] = {**asdict(row), "cosine": f"{row.cosine:.4f}"}
    return ["-" if value in (None, "") else str(value) for value in values.values()]


def _as_text(rows: Sequence[SearchResult]) -> Iterator[str]:
    """The lines for a terminal; the streams are all the same in most folders and left out."""
    names = ("rank", "cosine", "key", "speaker", "split", "labels", "text")
    lines = [names]
    for row in rows:
        cells = _cells(row)
        lines.append((*map(printable, cells[:5]), *map(printable, cells[6:])))  # type: ignore[arg-type]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names) - 1)]
    for line in lines:
        first = (f"{cell:<{width}}" for cell, width in zip(line[:-1], widths, strict=True))
        yield f"{'  '.join(first)}  {line[-1]}"
