"""The model card: what a stranger has to know of an encoder, from its config.json alone."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

LANGUAGE: Final = re.compile(r"[a-z]{2,3}")
UNSTATED: Final = "not stated"
NOT_RECORDED: Final = "not recorded"

_HEAD: Final = """\
---
library_name: mmembed
pipeline_tag: feature-extraction
tags: [mmembed, audio, video, text, speech, emotion, embeddings]
{languages}---

# {name}

An encoder of clips of people talking. It computes one vector for a clip and one for each frame
(25 a second){words}, from audio, face video and text, of which any may be missing. Written by
mmembed {version}; the SHA-256 of its weights is `{sha256}`. All settings of its training are in
config.json.

```python
from mmembed import Embedder

embedder = Embedder.from_pretrained("FOLDER or OWNER/NAME")
embedding = embedder("clip.mp4")
embedding.pooled, embedding.frames, embedding.layers
```

Width {width}: `pooled` has {pooled} numbers, `frames` {width} each.
"""

_USE: Final = """
## Intended use and limits

- Use the vectors as features for small models of emotion, sentiment or speakers, and for search. Do
  not use them to identify or judge people: a voice or a face does not show what a person feels, and
  decisions about people need more than this.
- The scores above hold for the corpora named there. Other languages, accents, ages, rooms, cameras
  and spontaneous speech can be much worse: measure on your own data first.
- One speaker a clip, of at most five minutes; of several faces the largest, most central one is
  followed. Transcripts of the recogniser have the errors counted above.
- Terms of the training data may bind the weights and what is made with them; they are named above
  as far as the manifests name them.
"""


_PRETRAINED: Final = """\
---
library_name: mmembed
pipeline_tag: feature-extraction
tags: [mmembed, embeddings]
---

# Pretrained encoders

Public encoders as they were published, side by side: nothing was trained here. Each stream keeps
its own layers. Written by mmembed {version}; together they have the SHA-256 `{sha256}`.

"""

_TERMS: Final = """
The licences of these encoders and of their training data bind what is made with them; their own
model cards tell more.
"""


def model_card(config: Mapping[str, Any], sha256: str, recognises: bool) -> str:
    """The README.md of an encoder folder; the same arguments give the same text.

    Args:
        config: config.json.
        sha256: of the weights.
        recognises: whether the folder has a recogniser.
    """
    if "pretrained" in config:
        return _pretrained_card(config, sha256)
    data: Sequence[Mapping[str, Any]] = config.get("data") or ()
    evaluation: Mapping[str, Any] = config.get("evaluation") or {}
    width = config["encoder"]["width"]
    spoken = sorted({name for part in data for name in part["languages"]} - {UNSTATED})
    codes = [name for name in spoken if LANGUAGE.fullmatch(name)]
    return (
        _HEAD.format(
            languages=f"language: [{', '.join(repr(code) for code in codes)}]\n" if codes else "",
            name=_text(config["run"].get("name") or "encoder"),
            words=", and one for each word" if recognises else "",
            version=_text(config["version"]),
            sha256=sha256,
            width=width,
            pooled=2 * width,
        )
        + _data(data)
        + _scores(evaluation)
        + _USE
    )


def _pretrained_card(config: Mapping[str, Any], sha256: str) -> str:
    """Of public encoders side by side, which were not trained here."""
    rows = [
        (stream, one["name"], one["sha256"], config["backbones"][stream]["model_type"])
        for stream, one in config["pretrained"].items()
    ]
    table = _table(("stream", "encoder", "SHA-256", "architecture"), rows)
    return _PRETRAINED.format(version=_text(config["version"]), sha256=sha256) + table + _TERMS


def training_line(
    name: str, items: int, kind: str, speakers: int = 0, licences: Sequence[str] = ()
) -> str:
    """`"talkers (synthetic), 840 clips, 20 speakers"`, for people who get predictions."""
    notes = [note for note in licences if note != UNSTATED]
    about = f" ({', '.join(notes)})" if notes else ""
    whose = f", {speakers:,} speaker{'s' if speakers > 1 else ''}" if speakers else ""
    return " ".join(f"{name[:100]}{about[:300]}, {items:,} {kind}{whose}".split())


def trained_on(config: Mapping[str, Any]) -> str:
    """What an encoder was trained on, in one line, from its config.json."""
    if "pretrained" in config:
        names = (f"{x['name'][:100]} ({stream})" for stream, x in config["pretrained"].items())
        return " ".join(f"public encoders as published: {', '.join(names)}".split())
    return (
        "; ".join(
            training_line(
                part["name"],
                part["utterances"],
                "utterances",
                part.get("speakers", 0),
                list(part["licences"]),
            )
            for part in config.get("data") or ()
        )
        or NOT_RECORDED
    )


def _data(data: Sequence[Mapping[str, Any]]) -> str:
    if not data:
        return "\n## Training data\n\nNot known here, or none: the weights may be random.\n"
    rows = [
        (
            part["name"],
            f"{part['utterances']:,}",
            f"{part['hours']:.2f}",
            _counts(part["languages"]),
            _counts(part["licences"]),
        )
        for part in data
    ]
    licences = Counter[str]()
    for part in data:
        licences.update(part["licences"])
    head = ("shards", "utterances", "hours", "languages", "licences")
    return (
        "\n## Training data\n\n"
        + _table(head, rows)
        + f"\nLicences, by utterances, as far as the manifests tell: {_text(_counts(licences))}.\n"
    )


def _scores(evaluation: Mapping[str, Any]) -> str:
    """By split: by stream subset, then with all streams by corpus."""
    if not any(split in evaluation for split in ("heldout", "test")):
        return "\n## Scores\n\nNone: it was not evaluated.\n"
    text = (
        "\n## Scores\n\nWord and character error rates of greedy CTC, and how often the speaker is "
        "found among those of the training data; held out are further utterances of training "
        "speakers, test has speakers of its own as far as the corpora allow.\n"
    )
    for split in ("heldout", "test"):
        scores = evaluation.get(split)
        if not scores:
            continue
        rows = [
            (
                name,
                f"{found['utterances']:,}",
                _percent(found, "wer"),
                _percent(found, "cer"),
                _percent(found, "speaker_accuracy"),
                _percent(found, "chance_speaker_accuracy"),
            )
            for by in ("by_streams", "by_corpus")
            for name, found in scores[by].items()
        ]
        head = ("streams or corpus", "utterances", "WER", "CER", "speakers", "by chance")
        text += f"\n### {split}\n\n{_table(head, rows)}"
    return text


def _percent(found: Mapping[str, float | None], name: str) -> str:
    value = found.get(name)
    return f"{value:.1%}" if value is not None and math.isfinite(value) else ""


def _counts(counts: Mapping[str, int]) -> str:
    """`"960 CC BY 4.0, 240 not stated"`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_text, line))} |\n" for line in lines)


def _text(text: str) -> str:
    """Text from manifests, which is nobody's markup."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", escaped)
