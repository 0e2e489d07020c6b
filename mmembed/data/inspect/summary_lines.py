"""A summary in words: what stands on the terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from mmembed.batch import STREAMS
from mmembed.data.inspect.summary import NOT_LOOKED_AT, Range, Summary, in_several_splits
from mmembed.data.locations import Location
from mmembed.data.manifest.jsonl import count_rows

LISTED: Final = 12  # names of one kind; the others are counted
NAMED: Final = 3  # items that a warning names

Fact = tuple[str, str]


def facts(summary: Summary) -> list[Fact]:
    """(what, how much) in the order of interest; what nobody knows is left out."""
    held: list[Fact] = [
        ("utterances", f"{summary.count:,} ({tally(summary.splits) or 'none is whole yet'})"),
        ("made", _made(summary.place)),
        ("length", _length(summary)),
        ("speakers", _per(summary.speakers, "utterances")),
        ("dialogues", _per(summary.dialogues, "turns")),
        ("languages", tally(summary.languages)),
        ("streams", _streams(summary)),
        ("faces", _faces(summary.faces)),
        *((f"{name} vectors", text) for name, text in _vectors(summary)),
        ("transcripts", _words(summary)),
        ("categories", tally(summary.categories)),
        ("emotions", _emotions(summary)),
        ("labels", f"{tally(summary.present)}, of {summary.asked:,}" if summary.asked else ""),
        ("sentiment", _sentiment(summary)),
        *((name, _range(held)) for name, held in sorted(summary.scores.items())),
        ("repeats", _repeats(summary)),
        ("broken", tally(summary.broken)),
        ("licences", tally(summary.licences)),
    ]
    return [(name, text) for name, text in held if text]


def warnings(summary: Summary) -> list[str]:
    """What is likely to be a mistake, each in a line."""
    found = []
    for what, names in (
        ("speakers", in_several_splits(summary.speakers)),
        ("dialogues", in_several_splits(summary.dialogues)),
        ("media files", sorted(summary.torn)),
    ):
        if names:
            found.append(
                f"{what} in more than one of train, dev and test: {_some(names)}; scores on such "
                f"a split say little of new {what}"
            )
    for what, repeats in (
        ("with the media and times of another", summary.same_media),
        ("with the sound of another", summary.same_sound),
    ):
        if repeats.count:
            pairs = [f"{key} as {first}" for first, key in repeats.examples]
            found.append(f"utterances {what}: {_some(pairs, repeats.count)}")
    for name, vectors in sorted(summary.vectors.items()):
        if vectors.not_finite:
            where = f"in {vectors.spoilt:,} of {vectors.widths.total():,} utterances"
            found.append(f"{name} values that are not finite: {vectors.not_finite:,}, {where}")
        if len(vectors.widths) > 1:
            widths = ", ".join(f"{count:,} of {width}" for width, count in vectors.widths.items())
            found.append(f"{name} vectors of several widths: {widths}")
    if summary.broken:
        keys = _some([key for key, _ in summary.failures], summary.broken.total())
        found.append(f"utterances that cannot be used: {keys}")
    rows = _count_rows(summary.place)
    if rows > (done := summary.count + summary.broken.total()):
        found.append(f"rows of the manifest that are not prepared yet: {rows - done:,} of {rows:,}")
    return found


def tally(counts: Mapping[str, int] | Mapping[int, int]) -> str:
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


def _made(place: Location) -> str:
    made = place.metadata
    if "encoder_sha256" in made:
        layers, rate = len(made.get("layers") or ()), made.get("frame_rate")
        encoder = str(made["encoder_sha256"])[:12]
        streams = "+".join(map(str, made.get("streams") or ()))
        return f"embeddings of {streams}, encoder {encoder}, {layers} layers, {rate} Hz"
    return f"features of {', '.join(map(str, made['streams']))}" if made.get("streams") else ""


def _streams(summary: Summary) -> str:
    """How many have each combination, and where there are several, each stream."""
    combined = tally(summary.streams)
    if len(summary.streams) < 2:
        return combined
    each = {
        stream: sum(n for name, n in summary.streams.items() if stream in name.split("+"))
        for stream in STREAMS
    }
    return f"{', '.join(f'{n:,} have {stream}' for stream, n in each.items())}: {combined}"


def _length(summary: Summary) -> str:
    if not summary.seconds:
        return "unknown until it is decoded" if NOT_LOOKED_AT in summary.streams else ""
    low, median, high, most = np.percentile(summary.seconds, [0, 50, 95, 100])
    hours = f"{sum(summary.seconds) / 3600:.2f} h"
    if len(summary.splits) > 1:
        by_split = ", ".join(f"{summary.hours[split]:.2f} {split}" for split in summary.splits)
        hours += f" ({by_split})"
    text = (
        f"{hours}; shortest {low:.2f} s, median {median:.2f}, 95 % {high:.2f}, longest {most:.2f}"
    )
    unknown = summary.count - len(summary.seconds)
    return f"{text}; of {unknown:,} unknown" if unknown else text


def _per(held: Mapping[str, Mapping[str, int]], what: str) -> str:
    """How many, and how large the smallest, the usual and the largest are."""
    if not held:
        return ""
    sizes = sorted(sum(splits.values()) for splits in held.values())
    middle = float(np.median(sizes))
    return f"{len(held):,} with {_between(sizes[0], sizes[-1], what)}, median {middle:,.0f}"


def _faces(faces: Mapping[str, int]) -> str:
    total = sum(faces.values())
    if not total:
        return ""
    found = total - faces.get("full frame", 0)
    return f"found in {100 * found / total:.1f} % of {total:,} ({tally(faces)})"


def _vectors(summary: Summary) -> Iterable[Fact]:
    for name, vectors in sorted(summary.vectors.items()):
        widths = " or ".join(map(str, sorted(vectors.widths)))
        total = vectors.widths.total()
        yield name, f"{total:,} of width {widths}, {vectors.steps / total:,.1f} steps each"


def _words(summary: Summary) -> str:
    if not summary.words:
        return ""
    low, median, most = np.percentile(summary.words, [0, 50, 100])
    once = sum(count == 1 for count in summary.vocabulary.values())
    return (
        f"{len(summary.words):,} with {_between(low, most, 'words')}, median {median:.0f}; "
        f"{summary.vocabulary.total():,} words, {len(summary.vocabulary):,} different, "
        f"{once:,} of them once"
    )


def _emotions(summary: Summary) -> str:
    asked = max(held.count for held in summary.emotions.values())
    return f"present: {tally(summary.emotions_present)}, of {asked:,}" if asked else ""


def _sentiment(summary: Summary) -> str:
    if not summary.sentiment:
        return ""
    by_class = sentiment_classes(summary.sentiment)
    classes = ", ".join(f"{count:,} at {name}" for name, count in by_class.items())
    mean = np.mean(summary.sentiment)
    return f"{len(summary.sentiment):,} scores, mean {mean:.2f}; rounded: {classes}"


def _range(held: Range) -> str:
    return f"{held.count:,} from {held.low:g} to {held.high:g}, mean {held.mean:.3g}"


def _repeats(summary: Summary) -> str:
    parts = [
        f"{repeats.count:,} {what}"
        for what, repeats in (
            ("with the media and times of another", summary.same_media),
            ("with the sound of another", summary.same_sound),
            ("with the words of another by the same speaker", summary.same_words),
        )
        if repeats.count
    ]
    return ", ".join(parts) or "none"


def _some(names: Sequence[str], total: int | None = None) -> str:
    """How many, and the names of the first few."""
    total = len(names) if total is None else total
    shown = ", ".join(names[:NAMED])
    return f"{total:,} ({shown}{', ...' if total > NAMED else ''})"


def _between(low: float, high: float, what: str) -> str:
    return f"{low:,.0f} {what} each" if low == high else f"{low:,.0f} to {high:,.0f} {what}"


def _count_rows(place: Location) -> int:
    if place.manifest is None:
        return 0
    return count_rows(place.manifest)
