"""Speech recognition and speaker classification of a method that predicts both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

import torch

from mmembed.batch import STREAMS, UNLABELLED
from mmembed.contract import Method
from mmembed.ctc import greedy_tokens
from mmembed.data.collate import EMPTY, Item, collate
from mmembed.data.example import Example
from mmembed.features.text import BLANK, Vocabulary, normalise_transcript
from mmembed.metrics import character_error_rate, word_error_rate
from mmembed.training.distributed import World

ITEMS_AT_ONCE = 16


@dataclass(frozen=True)
class Transcribed:
    """One utterance as heard by a method."""

    key: str
    reference: str
    hypothesis: str
    speaker: int
    speaker_predicted: int


def only_streams(item: Item, streams: Sequence[str]) -> Item:
    """The item with all other streams missing."""
    kept = {s: item.inputs[s] if s in streams else EMPTY[s] for s in STREAMS}
    return replace(item, inputs=kept)


@torch.no_grad()
def transcribe(
    method: Method,
    items: Sequence[Item],
    references: Sequence[str],
    alphabet: Vocabulary,
    streams: Sequence[str],
    world: World,
) -> list[Transcribed]:
    """Greedy transcripts and speakers of all items, in order, the work shared by all processes.

    Items without any of `streams` are left out.
    """
    training = method.training
    method.eval()
    usable = [i for i, item in enumerate(items) if any(len(item.inputs[s]) for s in streams)]
    mine = usable[world.rank :: world.size]
    found: list[tuple[int, Transcribed]] = []
    for start in range(0, len(mine), ITEMS_AT_ONCE):
        chosen = mine[start : start + ITEMS_AT_ONCE]
        batch = collate([only_streams(items[i], streams) for i in chosen]).to(world.device)
        predicted = {name: value.cpu() for name, value in method.predict(batch).items()}
        for row, index in enumerate(chosen):
            item = items[index]
            hypothesis = alphabet.decode(greedy_tokens(predicted["transcript"][row], BLANK))
            speaker = int(predicted["speaker"][row].argmax())
            found.append(
                (
                    index,
                    Transcribed(item.key, references[index], hypothesis, item.speaker, speaker),
                )
            )
    method.train(training)
    gathered = cast(list[list[tuple[int, Transcribed]]], world.gather(found))
    return [heard for _, heard in sorted(chain(*gathered), key=lambda pair: pair[0])]


def references_of(examples: Sequence[Example]) -> list[str]:
    """Normalised transcripts, empty where there is none."""
    return [normalise_transcript(example.utterance.transcript or "") for example in examples]


def speech_scores(heard: Sequence[Transcribed]) -> dict[str, float]:
    """wer, cer, speaker_accuracy (of known speakers), counts; what has no item is absent."""
    scores: dict[str, float] = {"utterances": len(heard)}
    spoken = [h for h in heard if h.reference]
    if spoken:
        references, hypotheses = [h.reference for h in spoken], [h.hypothesis for h in spoken]
        scores["wer"] = word_error_rate(references, hypotheses)
        scores["cer"] = character_error_rate(references, hypotheses)
    known = [h for h in heard if h.speaker != UNLABELLED]
    if known:
        right = sum(h.speaker == h.speaker_predicted for h in known)
        scores["speaker_accuracy"] = right / len(known)
        scores["speakers"] = len({h.speaker for h in known})
        commonest = max(sum(h.speaker == s for h in known) for s in {h.speaker for h in known})
        scores["chance_speaker_accuracy"] = commonest / len(known)
    return scores
