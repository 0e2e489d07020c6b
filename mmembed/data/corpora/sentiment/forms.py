"""Finds out in which form a corpus is given, and imports it with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.checks import REPORT, Check, checksum, write_report
from mmembed.data.corpora.sentiment import bclstm
from mmembed.data.corpora.sentiment.bclstm import convert_bclstm
from mmembed.data.corpora.sentiment.corpus import Counts, PublishedCorpus, Segment, to_rows
from mmembed.data.corpora.sentiment.csd import convert_csd
from mmembed.data.corpora.sentiment.labels import find_labels, read_labels
from mmembed.data.corpora.sentiment.media import media_below, with_media
from mmembed.data.corpora.sentiment.mmsa import convert_pickle
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

PICKLES: Final = (".pkl", ".pickle")

Imported = tuple[list[Segment], list[Check], Counts | None, str]
"""Segments, checks, published counts where this form has its own, and the name of the form."""


def convert(
    corpus: PublishedCorpus, source: Path, out: Path, *, words: bool = False
) -> list[Utterance]:
    """Import a corpus in any of its forms; writes OUT/integrity.json, and features if it has some.

    Args:
        corpus: which.
        source: a folder of videos with label files, of `.csd` files, or of one pickle; a pickle; or
            a label file.
        out: where features go, into `features/SPLIT.safetensors`.
        words: average `.csd` streams over words first.

    Raises:
        DataError: no such source, a form that is not known, or one that cannot be used.
    """
    if not source.exists():
        raise DataError(str(source), "missing", f"no such file or folder of {corpus.title}")
    segments, checks, counts, form = _import(corpus, source, out, words)
    rows, common = to_rows(corpus, segments, counts)
    write_report(out, [Check("form", form), *common, *checks])
    if not rows:
        why = f"not one segment of it can be used, see {out / REPORT}"
        raise DataError(str(source), "empty", why)
    return rows


def _import(corpus: PublishedCorpus, source: Path, out: Path, words: bool) -> Imported:
    if words:
        return *convert_csd(corpus, source, out, words=True), None, ".csd, averaged over words"
    if source.suffix.lower() in PICKLES:
        return *convert_pickle(corpus, source, out), corpus.pickle_counts, "pickle of MMSA"
    if source.is_file():
        return read_labels([source]), [checksum(source, None)], None, "labels alone"
    if all((source / name).is_file() for name in bclstm.FILES):
        return *convert_bclstm(source, out), bclstm.COUNTS, "vectors of bc-LSTM"
    if files_below(source, ".csd"):
        return *convert_csd(corpus, source, out), None, ".csd"
    tables, media = find_labels(source), media_below(source)
    checksums = [checksum(path, None) for path in tables]
    if tables and media:
        segments, checks = with_media(source, media, read_labels(tables))
        return segments, [*checksums, *checks], None, "videos with labels"
    pickles = files_below(source, *PICKLES)
    if len(pickles) == 1:
        return _import(corpus, pickles[0], out, words)
    if len(pickles) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in pickles)
        raise DataError(str(source), "ambiguous", f"holds several pickles, name one: {names}")
    if tables:
        return read_labels(tables), checksums, None, "labels alone"
    raise DataError(
        str(source),
        "empty",
        f"holds nothing known of {corpus.title}: videos with label.csv, .csd files, a pickle of "
        "MMSA or a label file",
    )
