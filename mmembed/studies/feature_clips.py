"""Precomputed features of clips as studies of embeddings read them, alone or beside embeddings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmembed.data.dataset import Examples
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.studies.embeddings_data import EmbeddedClips
from mmembed.studies.feature_tensors import features_of


def read_feature_clips(folder: str) -> EmbeddedClips:
    """The clips of a folder of prepared shards that have features of all streams found there.

    Returns:
        Of each stream one step (1, W) a clip: the mean over its steps, and behind it the standard
        deviation, where a clip has several.

    Raises:
        UsageError: it holds no features, or of one stream of several widths.
        DataError: a value is not finite.
    """
    utterances: list[Utterance] = []
    features: list[dict[str, Tensor]] = []
    for example in Examples([folder]):
        utterances.append(example.utterance)
        features.append({s: x for s, x in features_of(example, folder).items() if len(x)})
    streams = sorted({stream for one in features for stream in one})
    if not streams:
        raise UsageError(
            f"{folder}: holds no precomputed features; mmembed prepare makes shards of them"
        )
    whole = [row for row, one in enumerate(features) if len(one) == len(streams)]
    steps = {}
    for stream in streams:
        each = [features[row][stream] for row in whole]
        if len(widths := {x.shape[1] for x in each}) > 1:
            raise UsageError(f"{folder}: {stream} has the widths {sorted(widths)}; one is allowed")
        several = any(len(x) > 1 for x in each)
        steps[stream] = [
            torch.cat([x.mean(0), *([x.std(0, unbiased=False)] if several else [])])[None]
            for x in each
        ]
    rows = dict.fromkeys(streams, np.arange(len(whole)))
    return EmbeddedClips(tuple(utterances[row] for row in whole), steps, rows, (), "")


def beside(clips: EmbeddedClips, features: EmbeddedClips, where: str) -> EmbeddedClips:
    """The clips that both hold, with the streams of both, as `clips` describes them.

    Args:
        clips: of one folder of embeddings.
        features: see `read_feature_clips`.
        where: what the features were read from, for the message.

    Raises:
        UsageError: no clip is in both, or they disagree on its speaker or emotion.
    """
    place = {key: at for at, key in enumerate(features.keys)}
    both = [(at, place[row.key]) for at, row in enumerate(clips.utterances) if row.key in place]
    if not both:
        ours, theirs = clips.keys[0], next(iter(features.keys), "none")
        raise UsageError(
            f"{where}: has none of these clips; keys here are such as {ours}, there {theirs}"
        )
    rows, others = np.array(both).T
    for at, other in both:
        row, same = clips.utterances[at], features.utterances[other]
        for one, two in ((row.speaker, same.speaker), (row.labels.category, same.labels.category)):
            if one and two and one != two:
                raise UsageError(f"{where}: {row.key} is of {two} there, of {one} here")
    steps = {
        **{stream: clips.values(stream, rows) for stream in clips.steps},
        **{stream: features.values(stream, others) for stream in features.steps},
    }
    kept = tuple(clips.utterances[at] for at in rows.tolist())
    together = dict.fromkeys(steps, np.arange(len(kept)))
    return replace(clips, utterances=kept, steps=steps, rows=together)


def streams_alone(clips: EmbeddedClips, streams: tuple[str, ...]) -> EmbeddedClips:
    """The same clips with some of their streams."""
    return replace(
        clips,
        steps={stream: clips.steps[stream] for stream in streams},
        rows={stream: clips.rows[stream] for stream in streams},
    )
