"""Figures that others published, by protocol and corpus: data, never mixed with what is measured.

They are of the whole corpus, which may have more clips and classes than a folder of embeddings, and
of the procedure of its authors; docs/embedding.md#protocols says where ours differs. Sources:

- EmoBox: accuracy (WA) from its board for folds within a corpus,
  https://emo-box.github.io/leaderboard1.html; UAR (UA) from the table of the paper, Ma et al.,
  Interspeech 2024, arXiv 2406.07162.
- MAEB and MVEB, tasks CREMA_D and RAVDESSAVClassification: MTEB's boards and their results,
  https://github.com/embeddings-benchmark/results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Figure = tuple[float | None, float | None]
"""Accuracy and UAR, from 0 to 1; None where it was not published."""


@dataclass(frozen=True)
class Published:
    """Figures of a protocol on a corpus.

    Attributes:
        protocol: by its name here.
        corpus: what the keys of its clips begin with, before the first "-".
        about: name and size of the corpus.
        streams: of the clips.
        source: who published them, and where.
        figures: encoder -> its figure.
    """

    protocol: str
    corpus: str
    about: str
    streams: str
    source: str
    figures: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """All of it, the figures by name."""
        figures = {
            encoder: {"accuracy": accuracy, "uar": uar}
            for encoder, (accuracy, uar) in self.figures.items()
        }
        return {**vars(self), "figures": figures}

    def lines(self) -> Iterator[str]:
        """Each is marked as published."""
        yield f"published: {self.about}, {self.streams}, {self.protocol}; {self.source}"
        for encoder, figure in self.figures.items():
            accuracy, uar = ("-" if x is None else f"{x:.3f}" for x in figure)
            yield f"published: {encoder:23} accuracy {accuracy:>5}  UAR {uar:>5}"


ABOUT: Final[Mapping[str, str]] = {
    "crema_d": "CREMA-D, 7,442 clips of 6 emotions",
    "emodb": "EmoDB, 535 clips of 7 emotions",
    "emovo": "EMOVO, 588 clips of 7 emotions",
    "ravdess": "RAVDESS, 1,440 clips of 8 emotions",
    "urdu": "URDU, 400 clips of 4 emotions",
}

EMOBOX: Final = (
    "EmoBox (Ma et al. 2024, arXiv 2406.07162): accuracy of "
    "https://emo-box.github.io/leaderboard1.html, UAR of the paper"
)
MTEB: Final = "of https://github.com/embeddings-benchmark/results"

EMOBOX_WA: Final[Mapping[str, tuple[float, ...]]] = {
    "Whisper large v3": (76.48, 92.43, 57.82, 75.87, 82.52),
    "WavLM large": (74.32, 92.67, 48.82, 72.22, 86.61),
    "HuBERT large": (73.64, 90.26, 45.74, 70.29, 81.75),
    "HuBERT base": (70.98, 87.73, 46.10, 66.21, 88.41),
    "WavLM base": (69.49, 87.12, 42.39, 62.10, 82.82),
    "data2vec 2.0 large": (69.27, 80.41, 45.88, 71.63, 78.10),
    "data2vec 2.0 base": (65.48, 75.86, 42.96, 64.84, 69.97),
    "data2vec large": (63.51, 61.95, 35.66, 59.50, 64.81),
    "data2vec base": (57.78, 60.01, 32.47, 52.22, 65.42),
    "wav2vec 2.0 base": (61.90, 83.14, 31.07, 55.40, 87.50),
}
"""Percent, of the corpora in the order of `ABOUT`."""

EMOBOX_UA: Final[Mapping[str, tuple[float | None, ...]]] = {
    "Whisper large v3": (None, 91.3, 57.8, 75.3, 82.5),
    "WavLM large": (None, 92.6, 48.8, 72.0, 86.6),
    "HuBERT base": (None, 87.7, 46.1, 65.4, 88.4),
    "WavLM base": (None, 87.0, 42.4, 61.6, 82.8),
    "wav2vec 2.0 base": (None, 82.1, 31.1, 54.3, 87.5),
}


def _emobox(place: int) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for encoder, row in EMOBOX_WA.items():
        uar = EMOBOX_UA.get(encoder, (None,) * len(row))[place]
        found[encoder] = (row[place] / 100, None if uar is None else uar / 100)
    return found


PUBLISHED: Final[tuple[Published, ...]] = (
    *(
        Published("emobox", corpus, about, "audio", EMOBOX, _emobox(place))
        for place, (corpus, about) in enumerate(ABOUT.items())
    ),
    Published(
        "maeb",
        "crema_d",
        ABOUT["crema_d"],
        "audio",
        f"MAEB, task CREMA_D {MTEB}",
        {
            "Whisper tiny": (0.459, None),
            "Whisper base": (0.481, None),
            "Whisper small": (0.492, None),
        },
    ),
    Published(
        "maeb",
        "ravdess",
        ABOUT["ravdess"],
        "audio+video",
        f"MVEB, task RAVDESSAVClassification {MTEB}",
        {
            "BidirLM-Omni-2.5B": (0.569, None),
            "OmniEmbed": (0.447, None),
            "PE-AV base": (0.359, None),
            "Qwen2.5-Omni-7B": (0.286, None),
        },
    ),
)


def published_for(keys: Iterable[str], protocol: str | None = None) -> list[Published]:
    """What was published of the corpus of some clips.

    Args:
        keys: of the clips; those of `mmembed prepare` begin with the corpus.
        protocol: of this one alone; None = of all.

    Returns:
        Nothing where the clips are of several corpora.
    """
    corpora = {key.partition("-")[0] for key in keys}
    return [
        one for one in PUBLISHED if {one.corpus} == corpora and protocol in (None, one.protocol)
    ]
