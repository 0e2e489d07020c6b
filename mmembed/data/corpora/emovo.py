"""EMOVO, acted emotional Italian speech: 6 actors, 14 sentences, 7 emotions.

Names are emotion-actor-sentence. Source of sentences and codes: Costantini, Iadarola, Paoloni and
Todisco, "EMOVO Corpus: an Italian Emotional Speech Database", LREC 2014, and the text files in
its archive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media
from mmembed.data.manifest.utterance import Labels, Utterance

EMOTIONS: Final = {
    "neu": "neutral", "gio": "happy", "tri": "sad", "rab": "angry", "pau": "fearful",
    "dis": "disgust", "sor": "surprised",
}  # fmt: skip
SENTENCES: Final = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": ("L'autunno prossimo Tony partir\u00e0 per la Spagna nella prima met\u00e0 di ottobre."),
    "l2": "Ora prendo la felpa di l\u00e0 ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'\u00e8 incamminato ... ed \u00e8 inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatr\u00e9 dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa far\u00e0?",
    "d2": "Porti con te quella cosa?",
}
LICENCE: Final = "research"
SPLITS: Final = {"n5": "heldout", "n4": "dev"}


def read(root: Path) -> list[Utterance]:
    """EMOVO: acted emotional Italian speech."""
    emotions, sentences = "|".join(EMOTIONS), "|".join(SENTENCES)
    name = (
        rf"(?P<stem>(?P<emotion>{emotions})-(?P<actor>[fm][123])-(?P<sentence>{sentences}))" + SOUND
    )
    return [
        Utterance(
            key=f"emovo-{match['stem']}",
            media=path.as_posix(),
            transcript=SENTENCES[match["sentence"]],
            language="it",
            streams=("audio", "text"),
            speaker=f"emovo-{match['actor']}",
            split=SPLITS.get(match["sentence"], "train"),
            licence=LICENCE,
            labels=Labels(category=EMOTIONS[match["emotion"]]),
        )
        for path, match in find_media(root, name, "EMOVO", "f1/dis-f1-b1.wav")
    ]
