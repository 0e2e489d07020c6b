"""A summary in words: what stands on the terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np

from mmembed.data.inspect.summary import NOT_LOOKED_AT, Summary
from mmembed.data.locations import Location
from mmembed.data.manifest.jsonl import count_rows
from mmembed.streams import STREAMS

LISTED: Final = 12  # names of one kind; the others are counted
NAMED: Final = 3  # items that a warning names

_REPEATS: Final = {
    "same_media": "with the media and times of another",
    "same_audio": "with the audio of another",
    "same_words": "with the words of another by the same speaker",
}

Line = tuple[str, str]


def summary_lines(summary: Summary) -> list[Line]:
    """(what, how much) in the order of interest; what is not known is left out."""
    splits = format_counts(summary.counts("split")) or "none is whole yet"
    lines: list[Line] = [
        ("utterances", f"{len(summary):,} ({splits})"),
        ("made", _made(summary.location)),
        ("length", _length(summary)),
        ("speakers", _per(summary.counts("speaker"), "utterances")),
        ("dialogues", _per(summary.counts("dialogue"), "turns")),
        ("languages", format_counts(summary.counts("language"))),
        ("streams", _streams(summary.counts("streams"))),
        ("faces", _faces(summary.counts("face"))),
        *_vectors(summary),
        ("transcripts", _words(summary)),
        ("categories", format_counts(summary.counts("category"))),
        ("emotions", _emotions(summary)),
        ("labels", _present(summary)),
        ("sentiment", _sentiment(summary)),
        *_scores(summary),
        ("repeats", _repeats(summary)),
        ("broken", format_counts(summary.broken)),
        ("licences", format_counts(summary.counts("licence"))),
    ]
    return [(name, text) for name, text in lines if text]


def warnings(summary: Summary) -> list[str]:
    """What is likely to be a mistake, each in a line."""
    found = []
    for column, what in {
        "speaker": "speakers",
        "dialogue": "dialogues",
        "media": "media files",
    }.items():
        if names := summary.split_across(column):
            found.append(
                f"{what} in more than one of train, dev and test: {_some(names)}; scores on such "
                f"a split say little of new {what}"
            )
    for column in ("same_media", "same_audio"):
        count, examples = summary.repeats(column)
        if count:
            pairs = [f"{key} as {first}" for first, key in examples]
            found.append(f"utterances {_REPEATS[column]}: {_some(pairs, count)}")
    for name, vectors in _by_stream(summary):
        total, bad = (sum(x[key] for x in vectors) for key in ("steps_count", "bad_sum"))
        if bad:
            where = f"in {sum(x['is_bad_sum'] for x in vectors):,} of {total:,} utterances"
            found.append(f"{name} values that are not finite: {bad:,}, {where}")
        if len(vectors) > 1:
            widths = ", ".join(f"{x['steps_count']:,} of {x['width']}" for x in vectors)
            found.append(f"{name} vectors of several widths: {widths}")
    if summary.broken:
        keys = _some([key for key, _ in summary.failures], summary.broken.total())
        found.append(f"utterances that cannot be used: {keys}")
    rows = 0 if (manifest := summary.location.manifest) is None else count_rows(manifest)
    if rows > (done := len(summary) + summary.broken.total()):
        found.append(f"rows of the manifest that are not prepared yet: {rows - done:,} of {rows:,}")
    return found


def format_counts(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    """`"960 train, 240 test"`, the most frequent first, long lists cut."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    parts = [f"{count:,} {name}" for name, count in ordered[:LISTED]]
    rest = len(ordered) - len(parts)
    return ", ".join([*parts, f"and {rest:,} more names"] if rest else parts)


def sentiment_classes(values: Iterable[float]) -> dict[str, int]:
    """Scores by the seven classes of CMU-MOSEI: clipped to [-3, 3], halves rounded to even."""
    classes = np.rint(np.clip(np.asarray(list(values), float), -3, 3)).astype(int)
    return {
        f"{value:+d}" if value else "0": int((classes == value).sum()) for value in range(-3, 4)
    }


def _made(location: Location) -> str:
    made = location.metadata
    if "encoder_sha256" in made:
        layers, rate = len(made.get("layers") or ()), made.get("frame_rate")
        encoder = str(made["encoder_sha256"])[:12]
        streams = "+".join(map(str, made.get("streams") or ()))
        return f"embeddings of {streams}, encoder {encoder}, {layers} layers, {rate} Hz"
    return f"features of {', '.join(map(str, made['streams']))}" if made.get("streams") else ""


def _streams(subsets: Mapping[str, int]) -> str:
    """How many have each combination, and where there are several, each stream."""
    combined = format_counts(subsets)
    if len(subsets) < 2:
        return combined
    each = {
        stream: sum(n for name, n in subsets.items() if stream in name.split("+"))
        for stream in STREAMS
    }
    return f"{', '.join(f'{n:,} have {stream}' for stream, n in each.items())}: {combined}"


def _length(summary: Summary) -> str:
    seconds = summary.numbers("seconds")
    if not len(seconds):
        return "unknown until it is decoded" if NOT_LOOKED_AT in summary.counts("streams") else ""
    low, median, high, most = np.percentile(seconds, [0, 50, 95, 100])
    hours = f"{seconds.sum() / 3600:.2f} h"
    in_split = summary.rows.grouped("split", ("seconds", "sum"))
    if len(in_split) > 1:
        sums = [(row["split"], (row["seconds_sum"] or 0.0) / 3600) for row in in_split]
        by_split = ", ".join(f"{hours_in:.2f} {split}" for split, hours_in in sums)
        hours += f" ({by_split})"
    spread = f"shortest {low:.2f} s, median {median:.2f}, 95 % {high:.2f}, longest {most:.2f}"
    unknown = len(summary) - len(seconds)
    return f"{hours}; {spread}" + (f"; of {unknown:,} unknown" if unknown else "")


def _per(counts: Mapping[str, int], what: str) -> str:
    """How many, and how large the smallest, the usual and the largest are."""
    if not counts:
        return ""
    sizes = sorted(counts.values())
    middle = float(np.median(sizes))
    return f"{len(counts):,} with {_between(sizes[0], sizes[-1], what)}, median {middle:,.0f}"


def _faces(faces: Mapping[str, int]) -> str:
    total = sum(faces.values())
    if not total:
        return ""
    found = total - faces.get("full frame", 0)
    return f"found in {100 * found / total:.1f} % of {total:,} ({format_counts(faces)})"


def _by_stream(summary: Summary) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """Stream, or "pooled" -> its vectors by width."""
    sums = [("steps", "count"), ("steps", "sum"), ("bad", "sum"), ("is_bad", "sum")]
    groups = summary.vectors.grouped(["stream", "width"], *sums)
    groups.sort(key=itemgetter("stream"))
    return ((name, list(found)) for name, found in groupby(groups, itemgetter("stream")))


def _vectors(summary: Summary) -> Iterable[Line]:
    for name, vectors in _by_stream(summary):
        widths = " or ".join(map(str, sorted(x["width"] for x in vectors)))
        total, steps = (sum(x[key] for x in vectors) for key in ("steps_count", "steps_sum"))
        yield f"{name} vectors", f"{total:,} of width {widths}, {steps / total:,.1f} steps each"


def _words(summary: Summary) -> str:
    words = summary.numbers("words")
    if not len(words):
        return ""
    low, median, most = np.percentile(words, [0, 50, 100])
    once = sum(count == 1 for count in summary.vocabulary.values())
    return (
        f"{len(words):,} with {_between(low, most, 'words')}, median {median:.0f}; "
        f"{summary.vocabulary.total():,} words, {len(summary.vocabulary):,} different, "
        f"{once:,} of them once"
    )


def _emotions(summary: Summary) -> str:
    emotions = summary.emotions()
    if not emotions:
        return ""
    present = {name: present for name, (_, present) in emotions.items()}
    return f"present: {format_counts(present)}, of {max(emotions.values())[0]:,}"


def _present(summary: Summary) -> str:
    asked = len(summary) - summary.rows.table["present"].null_count
    return f"{format_counts(summary.counts('present'))}, of {asked:,}" if asked else ""


def _sentiment(summary: Summary) -> str:
    scores = summary.numbers("sentiment")
    if not len(scores):
        return ""
    by_class = sentiment_classes(scores)
    classes = ", ".join(f"{count:,} at {name}" for name, count in by_class.items())
    return f"{len(scores):,} scores, mean {np.mean(scores):.2f}; rounded: {classes}"


def _scores(summary: Summary) -> Iterable[Line]:
    of = [("value", name) for name in ("count", "min", "max", "mean")]
    for row in sorted(summary.scores.grouped("name", *of), key=itemgetter("name")):
        count, low, high, mean = (row[f"value_{name}"] for _, name in of)
        yield row["name"], f"{count:,} from {low:g} to {high:g}, mean {mean:.3g}"


def _repeats(summary: Summary) -> str:
    counts = {what: summary.repeats(column)[0] for column, what in _REPEATS.items()}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "none"


def _some(names: Sequence[str], total: int | None = None) -> str:
    """How many, and the names of the first few."""
    total = len(names) if total is None else total
    shown = ", ".join(names[:NAMED])
    return f"{total:,} ({shown}{', ...' if total > NAMED else ''})"


def _between(low: float, high: float, what: str) -> str:
    return f"{low:,.0f} {what} each" if low == high else f"{low:,.0f} to {high:,.0f} {what}"
