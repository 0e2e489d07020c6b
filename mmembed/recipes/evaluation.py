"""What a pre-trained method is scored on: recognition and speakers, by stream subset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmembed.batch import STREAMS, stream_subsets, subset_name
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.recipes.corpus import Corpus
from mmembed.training.distributed import World
from mmembed.training.evaluate import speech_scores, transcribe

SAMPLES = 12  # transcripts kept for reading


def evaluate_speech(
    method: CtcSpeaker, corpus: Corpus, world: World, splits: Sequence[str] = ("heldout", "test")
) -> dict[str, Any]:
    """Scores of each split: by stream subset, and with all streams by corpus; learned weights.

    WER and CER are of greedy CTC decoding; speaker accuracy is over the training speakers alone.
    """
    streams = [stream for stream in corpus.config.streams if stream != "text"]
    result: dict[str, Any] = {}
    for split in splits:
        items, references = corpus.evaluation(split)
        if not items:
            continue
        by_streams = {}
        for subset in stream_subsets(streams):
            heard = transcribe(method, items, references, corpus.alphabet, subset, world)
            if heard:
                by_streams[subset_name(subset)] = speech_scores(heard)
        corpora = sorted({_corpus(h.key) for h in heard})
        result[split] = {
            **by_streams[subset_name(streams)],
            "by_streams": by_streams,
            "by_corpus": {
                corpus: speech_scores([h for h in heard if _corpus(h.key) == corpus])
                for corpus in corpora
            },
            "samples": [
                {"key": h.key, "reference": h.reference, "hypothesis": h.hypothesis}
                for h in heard[:: max(1, len(heard) // SAMPLES)][:SAMPLES]
            ],
        }
    names = method.encoder.own_layer_names("audio")
    weights = method.speaker_layers.weights.tolist()
    result["fusion_weights"] = dict(
        zip(STREAMS, method.encoder.fusion_weights.tolist(), strict=True)
    )
    result["layer_weights"] = {"speaker": dict(zip(names, weights, strict=True))}
    return result


def quick_scores(method: CtcSpeaker, corpus: Corpus, world: World) -> dict[str, float]:
    """wer, cer on dev and speaker_accuracy on heldout, all streams: points of a learning curve."""
    streams = [stream for stream in corpus.config.streams if stream != "text"]
    scores: dict[str, float] = {}
    for split, names in (("dev", ("wer", "cer")), ("heldout", ("speaker_accuracy",))):
        items, references = corpus.evaluation(split)
        if items:
            heard = transcribe(method, items, references, corpus.alphabet, streams, world)
            scores |= {k: v for k, v in speech_scores(heard).items() if k in names}
    return scores


def _corpus(key: str) -> str:
    """Keys begin with the name of their corpus: "fsdd-0_george_0" -> "fsdd"."""
    return key.split("-", 1)[0]
