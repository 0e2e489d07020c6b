"""CREMA-D, acted emotional English speech with crowd votes: 91 actors, 12 sentences, 6 emotions.

Names are actor_sentence_emotion_intensity (`1001_DFA_ANG_XX`); every clip is published as audio
(AudioWAV, AudioMP3) and as video with audio (VideoFlash). Source of layout and columns:
github.com/CheyneyComputerScience/CREMA-D and Cao, Cooper, Keutmann, Gur, Nenkova and Verma, IEEE
Transactions on Affective Computing 5(4), 2014. Of VideoDemographics.csv (age, sex, race) a manifest
holds nothing, and nothing is read. A clone without Git LFS holds pointers instead of media.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import best_of, find_media
from mmembed.data.corpora.tables import read_table
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

EMOTIONS: Final = {
    "ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral",
    "SAD": "sad",
}  # fmt: skip
SENTENCES: Final = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
SPLITS: Final = {"WSI": "heldout", "TSI": "dev"}
KINDS: Final = ("flv", "mp4", "wav", "mp3")
"""Two of video, two of audio; of the files of a clip the first of these is used."""

VOTES: Final = "processedResults/tabulatedVotes.csv"
QUERIES: Final = {"1": "voice", "2": "face", "3": "both"}
"""What raters heard or saw, by the first digit of a row's number (100,000 x query + clip)."""

LICENCE: Final = "ODbL 1.0, contents DbCL 1.0"


def read(root: Path) -> list[Utterance]:
    """CREMA-D: acted emotional English speech with crowd votes, as videos or audio.

    The category is the emotion that the actor was to play. Where the folder holds
    `processedResults/tabulatedVotes.csv`, the scores "voice_angry", "face_angry", "both_angry", ...
    are the fraction in [0, 1] of the raters who heard, saw, or heard and saw that emotion. Two
    sentences are kept out of training: the corpus publishes no splits.
    """
    votes = _votes(root / VOTES)
    name = (
        rf"(?P<stem>(?P<actor>\d{{4}})_(?P<sentence>{'|'.join(SENTENCES)})"
        rf"_(?P<emotion>{'|'.join(EMOTIONS)})_(?:LO|MD|HI|XX?))\.(?i:{'|'.join(KINDS)})"
    )
    found = (
        Utterance(
            key=f"crema_d-{match['stem']}",
            media=path.as_posix(),
            transcript=SENTENCES[match["sentence"]],
            language="en",
            streams=("audio", "text") if _kind(path) > 1 else ("audio", "video", "text"),
            speaker=f"crema_d-{match['actor']}",
            split=SPLITS.get(match["sentence"], "train"),
            licence=LICENCE,
            labels=Labels(category=EMOTIONS[match["emotion"]], scores=votes.get(match["stem"], {})),
        )
        for path, match in find_media(root, name, "CREMA-D", "AudioWAV/1001_DFA_ANG_XX.wav")
    )
    rows = best_of(root, found, lambda row: _kind(Path(str(row.media))))
    stems = {row.key.removeprefix("crema_d-") for row in rows}
    log_skipped(root, sorted(set(votes) - stems), "clips have votes but no file")
    if votes:
        log_skipped(root, sorted(stems - set(votes)), "clips have no votes")
    return rows


def _kind(path: Path) -> int:
    return KINDS.index(path.suffix[1:].lower())


def _votes(path: Path) -> dict[str, dict[str, float]]:
    """Clip -> "voice_angry" and the like -> fraction of the raters."""
    if not path.is_file():
        return {}
    codes = {code[0]: emotion for code, emotion in EMOTIONS.items()}
    votes: dict[str, dict[str, float]] = {}
    for line, row in read_table(path, ("", "fileName", *codes)):
        query = QUERIES.get(row[""][:1])
        try:
            counts = {emotion: float(row[code]) for code, emotion in codes.items()}
        except ValueError as error:
            raise DataError(f"{path}:{line}", "table", f"votes must be counts: {error}") from None
        total = sum(counts.values())
        if query is None or not total > 0:
            raise DataError(f"{path}:{line}", "table", "not the row numbers or votes published")
        votes.setdefault(row["fileName"], {}).update(
            {f"{query}_{emotion}": round(n / total, 4) for emotion, n in counts.items()}
        )
    return votes
