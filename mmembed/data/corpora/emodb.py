"""EmoDB, the Berlin database of acted emotional German speech: 10 actors, 10 sentences.

Names are speaker, sentence, emotion (the letter of its German word) and version. Source of
sentences and codes: Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss, "A database of German
emotional speech", Interspeech 2005, and emodb.bilderbar.info.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media
from mmembed.data.manifest.utterance import Labels, Utterance

EMOTIONS: Final = {
    "N": "neutral",  # neutral
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "W": "angry",  # Wut
    "A": "fearful",  # Angst
    "E": "disgust",  # Ekel
    "L": "boredom",  # Langeweile
}
SENTENCES: Final = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend k\u00f6nnte ich es ihm sagen.",
    "a05": "Das schwarze St\u00fcck Papier befindet sich da oben neben dem Holzst\u00fcck.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das f\u00fcr T\u00fcten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
LICENCE: Final = "research"
SPLITS: Final = {"b10": "heldout", "b09": "dev"}


def read(root: Path) -> list[Utterance]:
    """EmoDB: acted emotional German speech."""
    sentences = "|".join(SENTENCES)
    name = (
        rf"(?P<stem>(?P<actor>\d\d)(?P<sentence>{sentences})(?P<emotion>[NFTWAEL])[a-z]?)" + SOUND
    )
    return [
        Utterance(
            key=f"emodb-{match['stem']}",
            media=path.as_posix(),
            transcript=SENTENCES[match["sentence"]],
            language="de",
            streams=("audio", "text"),
            speaker=f"emodb-{match['actor']}",
            split=SPLITS.get(match["sentence"], "train"),
            licence=LICENCE,
            labels=Labels(category=EMOTIONS[match["emotion"]]),
        )
        for path, match in find_media(root, name, "EmoDB", "wav/03a01Fa.wav")
    ]
