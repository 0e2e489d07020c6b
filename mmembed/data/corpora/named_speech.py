"""Emotional speech whose file names say who speaks, what and how: EmoDB, EMOVO and URDU.

EmoDB, acted German: 10 actors, 10 sentences. Names are speaker, sentence, emotion (the letter of
its German word) and version. Source of sentences and codes: Burkhardt, Paeschke, Rolfes, Sendlmeier
and Weiss, "A database of German emotional speech", Interspeech 2005, and emodb.bilderbar.info.

EMOVO, acted Italian: 6 actors, 14 sentences. Names are emotion-actor-sentence. Source of sentences
and codes: Costantini, Iadarola, Paoloni and Todisco, "EMOVO Corpus: an Italian Emotional Speech
Database", LREC 2014, and the text files in its archive.

URDU, cut from Urdu talk shows: 38 speakers, 4 emotions x 100 utterances. Published as folders of
emotions with names speaker_file_emotion+number, where SM is a man and SF a woman. Source of the
layout: github.com/siddiquelatif/URDU-Dataset and Latif, Qayyum, Usman and Qadir, "Cross Lingual
Speech Emotion Recognition: Urdu vs. Western Languages", FIT 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media
from mmembed.data.manifest.utterance import Labels, Utterance

EMODB_EMOTIONS: Final = {
    "N": "neutral",  # neutral
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "W": "angry",  # Wut
    "A": "fearful",  # Angst
    "E": "disgust",  # Ekel
    "L": "boredom",  # Langeweile
}
EMOVO_EMOTIONS: Final = {
    "neu": "neutral", "gio": "happy", "tri": "sad", "rab": "angry", "pau": "fearful",
    "dis": "disgust", "sor": "surprised",
}  # fmt: skip
URDU_EMOTIONS: Final = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}

EMODB_SENTENCES: Final = {
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
EMOVO_SENTENCES: Final = {
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
SPLITS: Final = {"b10": "heldout", "b09": "dev", "n5": "heldout", "n4": "dev"}
"""By the sentence; all others are for training."""

LICENCE: Final = "research"


def read_emodb(root: Path) -> list[Utterance]:
    """EmoDB: acted emotional German speech."""
    sentences = "|".join(EMODB_SENTENCES)
    name = rf"(?P<speaker>\d\d)(?P<sentence>{sentences})(?P<emotion>[NFTWAEL])[a-z]?"
    example = "wav/03a01Fa.wav"
    return _read(root, "EmoDB", name, example, "de", EMODB_EMOTIONS, EMODB_SENTENCES)


def read_emovo(root: Path) -> list[Utterance]:
    """EMOVO: acted emotional Italian speech."""
    emotions, sentences = "|".join(EMOVO_EMOTIONS), "|".join(EMOVO_SENTENCES)
    name = rf"(?P<emotion>{emotions})-(?P<speaker>[fm][123])-(?P<sentence>{sentences})"
    example = "f1/dis-f1-b1.wav"
    return _read(root, "EMOVO", name, example, "it", EMOVO_EMOTIONS, EMOVO_SENTENCES)


def read_urdu(root: Path) -> list[Utterance]:
    """URDU: emotional speech out of Urdu talk shows, without words.

    There are no splits: the corpus publishes none, and the experiment splits the 38 speakers.
    """
    name = r"(?P<speaker>S[MF]\d+)_F\d+_(?P<emotion>[AHNS])\d+"
    return _read(root, "URDU", name, "Angry/SM1_F1_A01.wav", "ur", URDU_EMOTIONS, {})


def _read(
    root: Path,
    corpus: str,
    name: str,
    example: str,
    language: str,
    emotions: Mapping[str, str],
    sentences: Mapping[str, str],
) -> list[Utterance]:
    """The utterances of a corpus; without sentences its words are unknown, and it has no splits."""
    return [
        Utterance(
            key=f"{corpus.lower()}-{match['stem']}",
            media=path.as_posix(),
            transcript=sentences[match["sentence"]] if sentences else None,
            language=language,
            streams=("audio", "text") if sentences else ("audio",),
            speaker=f"{corpus.lower()}-{match['speaker']}",
            split=SPLITS.get(match["sentence"], "train") if sentences else None,
            licence=LICENCE,
            labels=Labels(category=emotions[match["emotion"]]),
        )
        for path, match in find_media(root, f"(?P<stem>{name}){SOUND}", corpus, example)
    ]
