"""What a pre-trained method is scored on: recognition and speakers, by stream subset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmembed.batch import STREAMS, stream_subsets, subset_name
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.recipes.pretrain_data import Corpus
from mmembed.recipes.speech_scores import Transcribed, speech_scores, transcribe
from mmembed.training.distributed import World

SAMPLES = 12  # transcripts kept for reading


def evaluate_speech(
    method: CtcSpeaker, corpus: Corpus, world: World, splits: Sequence[str] = ("heldout", "test")
) -> dict[str, Any]:
    """Scores of each split: by stream subset, and with all streams by corpus; learned weights.

    WER and CER are of greedy CTC decoding; speaker accuracy is over the training speakers alone.
    A corpus has the name of its prepared folder. A split without sound and pictures, or a run of
    texts alone, has no scores of speech and is left out.

    Returns:
        The same kind of mapping on the main process alone; {} on the others.
    """
    streams = _perceived(corpus)
    result: dict[str, Any] = {}
    for split in splits if streams else ():
        tests = corpus.test_set(split)
        heard = transcribe(method, tests, stream_subsets(streams), corpus.alphabet, world)
        every = heard[streams]
        if not every:
            continue
        by_corpus: dict[str, list[Transcribed]] = {name: [] for name in sorted(corpus.names)}
        for one in every:
            by_corpus[corpus.names[tests.examples.folder(one.number)]].append(one)
        by_streams = {subset_name(s): speech_scores(found) for s, found in heard.items() if found}
        result[split] = {
            **by_streams[subset_name(streams)],
            "by_streams": by_streams,
            "by_corpus": {name: speech_scores(found) for name, found in by_corpus.items() if found},
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


def quick_scores(method: CtcSpeaker, corpus: Corpus, world: World) -> dict[str, float]:
    """wer, cer on dev and speaker_accuracy on heldout, all streams: points of a learning curve.

    What cannot be scored is left out. On the main process alone; {} on the others.
    """
    streams = _perceived(corpus)
    scores: dict[str, float] = {}
    for split, names in (("dev", ("wer", "cer")), ("heldout", ("speaker_accuracy",))):
        if streams:
            tests = corpus.test_set(split)
            heard = transcribe(method, tests, [streams], corpus.alphabet, world)[streams]
            scores |= {k: v for k, v in speech_scores(heard).items() if k in names}
    return scores


def _perceived(corpus: Corpus) -> tuple[str, ...]:
    """The streams in which speech is recognised."""
    return tuple(s for s in STREAMS if s != "text" and s in corpus.config.streams)
