"""What a pre-trained method is scored on: recognition and speakers, by stream subset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import numpy as np
import torch

from mmembed.batch import UNLABELLED
from mmembed.ctc import greedy_tokens
from mmembed.data.item import EMPTY, Item, collate
from mmembed.data.loader import SpeechItems
from mmembed.features.text import Vocabulary
from mmembed.method import Method
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.metrics.speech import character_error_rate, word_error_rate
from mmembed.pretraining.pretrain_data import TrainingCorpus
from mmembed.streams import STREAMS, stream_subsets, subset_name
from mmembed.training.distributed import World

SAMPLES: Final = 12  # transcripts kept for reading
BATCH_SIZE: Final = 16
SPLITS: Final = ("heldout", "test")


def evaluate_speech(method: CtcSpeaker, corpus: TrainingCorpus, world: World) -> dict[str, Any]:
    """Scores of heldout and test, by stream subset, and with all streams by corpus; learned weights
    of streams and layers.

    WER and CER are of greedy CTC decoding; speaker accuracy is over the training speakers alone.
    A corpus has the name of its prepared folder. A split without audio and video, or a run of
    texts alone, has no scores of speech and is left out.

    Returns:
        The same kind of mapping on the main process alone; {} on the others.
    """
    streams = _perceived(corpus)
    result: dict[str, Any] = {}
    for split in SPLITS if streams else ():
        tests = corpus.test_set(split)
        by_subset = transcribe(method, tests, stream_subsets(streams), corpus.alphabet, world)
        every = by_subset[streams]
        if not every:
            continue
        by_corpus: dict[str, list[Transcribed]] = {name: [] for name in sorted(corpus.names)}
        for one in every:
            by_corpus[corpus.names[tests.examples.folders[one.number]]].append(one)
        by_streams = {subset_name(s): speech_scores(part) for s, part in by_subset.items() if part}
        result[split] = {
            **by_streams[subset_name(streams)],
            "by_streams": by_streams,
            "by_corpus": {name: speech_scores(part) for name, part in by_corpus.items() if part},
            "samples": [
                {"key": h.key, "reference": h.reference, "hypothesis": h.hypothesis}
                for h in every[:: max(1, len(every) // SAMPLES)][:SAMPLES]
            ],
        }
    if not world.is_main:
        return {}
    names = method.encoder.own_layer_names("audio")
    weights = method.speaker_layers.weights.tolist()
    result["fusion_weights"] = dict(
        zip(STREAMS, method.encoder.fusion_weights.tolist(), strict=True)
    )
    result["layer_weights"] = {"speaker": dict(zip(names, weights, strict=True))}
    return result


def quick_scores(method: CtcSpeaker, corpus: TrainingCorpus, world: World) -> dict[str, float]:
    """wer, cer on dev and speaker_accuracy on heldout, all streams: points of a learning curve.

    What cannot be scored is left out. On the main process alone; {} on the others.
    """
    streams = _perceived(corpus)
    scores: dict[str, float] = {}
    for split, names in (("dev", ("wer", "cer")), ("heldout", ("speaker_accuracy",))):
        if streams:
            tests = corpus.test_set(split)
            results = transcribe(method, tests, [streams], corpus.alphabet, world)[streams]
            scores |= {k: v for k, v in speech_scores(results).items() if k in names}
    return scores


def _perceived(corpus: TrainingCorpus) -> tuple[str, ...]:
    """The streams in which speech is recognised."""
    return tuple(s for s in STREAMS if s != "text" and s in corpus.config.streams)


@dataclass(frozen=True)
class Transcribed:
    """One utterance as recognised by a method.

    Attributes:
        number: of the item in the test set.
        key: of the utterance.
        reference: its normalised transcript, "" where there is none.
        hypothesis: what was recognised.
        speaker: class id, or UNLABELLED.
        speaker_predicted: class id.
    """

    number: int
    key: str
    reference: str
    hypothesis: str
    speaker: int
    speaker_predicted: int


@torch.no_grad()
def transcribe(
    method: Method,
    tests: SpeechItems,
    subsets: Sequence[tuple[str, ...]],
    alphabet: Vocabulary,
    world: World,
) -> dict[tuple[str, ...], list[Transcribed]]:
    """Greedy transcripts and speakers of a test set under each of several stream subsets.

    Each process reads its part of the items, `BATCH_SIZE` at a time and each once, and keeps
    nothing of them but the result.

    Returns:
        On the main process, in the order of the test set, the results under each subset; an
        utterance without any of the subset's streams is left out. On the others nothing.
    """
    training = method.training
    method.eval()
    needed = [STREAMS.index(stream) for stream in sorted({s for one in subsets for s in one})]
    usable = np.flatnonzero((tests.lengths[:, needed] > 0).any(1)).tolist()
    mine = usable[world.rank :: world.size]
    results: dict[tuple[str, ...], list[Transcribed]] = {subset: [] for subset in subsets}
    for start in range(0, len(mine), BATCH_SIZE):
        rows = [
            (number, tests.read(number), tests.transcripts[number])
            for number in mine[start : start + BATCH_SIZE]
        ]
        for subset in subsets:
            chosen = [row for row in rows if any(len(row[1].inputs[s]) for s in subset)]
            if chosen:
                results[subset] += _transcribe(method, chosen, subset, alphabet, world)
    method.train(training)
    collected = world.collect(results)
    return {
        subset: sorted(chain(*(part[subset] for part in collected)), key=attrgetter("number"))
        for subset in subsets
    }


def _transcribe(
    method: Method,
    rows: Sequence[tuple[int, Item, str]],
    streams: Sequence[str],
    alphabet: Vocabulary,
    world: World,
) -> list[Transcribed]:
    items = [
        replace(item, inputs={s: item.inputs[s] if s in streams else EMPTY[s] for s in STREAMS})
        for _, item, _ in rows
    ]
    batch = collate(items).to(world.device)
    predicted = {name: value.cpu() for name, value in method.predict(batch).items()}
    tokens, speakers = predicted["transcript"], predicted["speaker"].argmax(1).tolist()
    return [
        Transcribed(
            number,
            item.key,
            reference,
            alphabet.decode(greedy_tokens(tokens[row])),
            item.speaker,
            speakers[row],
        )
        for row, (number, item, reference) in enumerate(rows)
    ]


def score_lines(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """A line for each split and stream subset of `evaluate_speech`, for a terminal."""
    for split in SPLITS:
        for streams, scores in evaluation.get(split, {}).get("by_streams", {}).items():
            line = f"{split}, {streams}: {scores['utterances']} utterances"
            for name, title in (("wer", "WER"), ("cer", "CER")):
                if scores.get(name) is not None:
                    line += f", {title} {scores[name]:.3f}"
            if scores.get("speaker_accuracy") is not None:
                line += (
                    f", speaker accuracy {scores['speaker_accuracy']:.3f} "
                    f"(chance {scores['chance_speaker_accuracy']:.3f})"
                )
            yield line


def speech_scores(results: Sequence[Transcribed]) -> dict[str, float]:
    """wer, cer, speaker_accuracy (of known speakers), counts; what has no item is absent."""
    scores: dict[str, float] = {"utterances": len(results)}
    spoken = [h for h in results if h.reference]
    if spoken:
        references, hypotheses = [h.reference for h in spoken], [h.hypothesis for h in spoken]
        scores["wer"] = word_error_rate(references, hypotheses)
        scores["cer"] = character_error_rate(references, hypotheses)
    known = [h for h in results if h.speaker != UNLABELLED]
    if known:
        right = sum(h.speaker == h.speaker_predicted for h in known)
        scores["speaker_accuracy"] = right / len(known)
        counts = Counter(h.speaker for h in known)
        scores["speakers"] = len(counts)
        scores["chance_speaker_accuracy"] = max(counts.values()) / len(known)
    return scores
