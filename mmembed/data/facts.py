"""A summary in words: what stands on the terminal and on the page alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from mmembed.batch import STREAMS
from mmembed.data.places import Place
from mmembed.data.summary import NOT_LOOKED_AT, Range, Repeats, Summary, in_several_splits

LISTED: Final = 12  # names of one kind; the others are counted

Fact = tuple[str, str]


def facts(summary: Summary) -> list[Fact]:
    """(what, how much) in the order of interest; what nobody knows is left out."""
    held: list[Fact] = [
        ("utterances", f"{summary.count:,} ({tally(summary.splits)})"),
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
                f"{len(names):,} {what} occur in more than one of train, dev and test: "
                f"{listing(names)}; scores on such a split say little of new {what}"
            )
    for what, repeats in (
        ("name the same times of the same media", summary.same_media),
        ("hold the same sound", summary.same_sound),
    ):
        if repeats.count:
            found.append(f"{repeats.count:,} utterances {what} as another: {_pairs(repeats)}")
    for name, vectors in summary.vectors.items():
        if vectors.not_finite:
            found.append(
                f"{vectors.not_finite:,} values of {name}, in {vectors.spoilt:,} utterances, are "
                "not finite"
            )
        if len(vectors.widths) > 1:
            found.append(f"{name} has several widths: {tally(vectors.widths)}")
    if summary.broken:
        keys = listing([key for key, _ in summary.failures], summary.broken.total())
        found.append(f"{summary.broken.total():,} utterances cannot be used: {keys}")
    rows = _count_rows(summary.place)
    if rows > (done := summary.count + summary.broken.total()):
        found.append(f"{rows - done:,} of {rows:,} rows of the manifest are not prepared yet")
    return found


def tally(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    """`"960 train, 240 test"`, the most frequent first, long lists cut."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    parts = [f"{count:,} {name}" for name, count in ordered[:LISTED]]
    rest = len(ordered) - len(parts)
    return ", ".join([*parts, f"and {rest:,} more names"] if rest else parts)


def listing(names: Sequence[str], total: int | None = None, most: int = 3) -> str:
    """The first few of many names."""
    rest = (len(names) if total is None else total) - min(len(names), most)
    return ", ".join(names[:most]) + (f" and {rest:,} more" if rest else "")


def sentiment_classes(values: Iterable[float]) -> dict[str, int]:
    """Scores by the seven classes of CMU-MOSEI: clipped to [-3, 3], halves rounded to even."""
    classes = np.rint(np.clip(np.asarray(list(values), float), -3, 3)).astype(int)
    return {
        f"{value:+d}" if value else "0": int((classes == value).sum()) for value in range(-3, 4)
    }


def _made(place: Place) -> str:
    made = place.made
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
    if sizes[0] == sizes[-1]:
        return f"{len(held):,} with {sizes[0]:,} {what} each"
    return f"{len(held):,} with {sizes[0]:,} to {sizes[-1]:,} {what}, median {middle:,.0f}"


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
        f"{len(summary.words):,} with {low:.0f} to {most:.0f} words, median {median:.0f}; "
        f"{summary.vocabulary.total():,} words, {len(summary.vocabulary):,} different, "
        f"{once:,} of them once"
    )


def _emotions(summary: Summary) -> str:
    asked = next(iter(summary.emotions.values())).count
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


def _pairs(repeats: Repeats) -> str:
    return listing([f"{key} as {first}" for first, key in repeats.examples], repeats.count)


def _count_rows(place: Place) -> int:
    if place.rows is None:
        return 0
    with place.rows.open("rb") as file:
        return sum(bool(line.strip()) for line in file)
