"""Texts with several labels: read from shards, behind prompts, and for a linear baseline."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from mmembed.batch import Batch, Padded
from mmembed.data.dataset import Examples
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.features.emotion_words import members
from mmembed.features.prompt import OR, Prompt, Tokenizer, emotion_prompt, masked_prompt
from mmembed.features.social_text import normalise_post
from mmembed.methods.demux import Demux, PromptedMethod
from mmembed.metrics.multilabel import macro_f1
from mmembed.studies.baselines import best_on_dev
from mmembed.studies.groups import ManifestItems
from mmembed.studies.scoring import Array
from mmembed.studies.splits import SPLITS
from mmembed.studies.text_vectors import text_vectors

BATCH: Final = 128  # texts predicted at once
STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)  # C of the logistic regression, chosen on dev
BALANCE: Final = (None, "balanced")  # weights of present and absent, likewise


@dataclass(frozen=True)
class DemuxTexts(ManifestItems):
    """Texts and what is present in them.

    Attributes:
        texts: N, normalised.
        labels: (N, E) float32, 0 or 1.
    """

    texts: tuple[str, ...]
    labels: Tensor

    @classmethod
    def of(cls, rows: Sequence[Utterance], emotions: Sequence[str]) -> DemuxTexts:
        """Rows with labels; a cluster is present where one of its members is."""
        marks = [
            [not set(members(emotion)).isdisjoint(row.labels.present or ()) for emotion in emotions]
            for row in rows
        ]
        return cls(
            tuple(rows),
            tuple(normalise_post(row.transcript or "") for row in rows),
            torch.tensor(marks, dtype=torch.float32).view(len(rows), len(emotions)),
        )


def read_rows(folder: str) -> dict[str, list[Utterance]]:
    """Split -> rows with a text whose emotions are known.

    Raises:
        UsageError: no folder given, or no such rows in one of the splits.
    """
    if not folder:
        raise UsageError("no data: give --shards DIR, a folder of prepared texts")
    found: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    for example in Examples([Path(folder)]):
        row = example.utterance
        if row.split in found and row.transcript and row.labels.present is not None:
            found[row.split].append(row)
    for split, rows in found.items():
        if not rows:
            raise UsageError(f"{folder}: holds no texts with several labels of the split {split}")
    return found


def prompt_for(
    method: type[PromptedMethod],
    text: str,
    words: Sequence[str],
    tokenizer: Tokenizer,
    length: int,
    language: str | None = None,
) -> Prompt:
    """A text as the method reads it: behind the emotion words, or behind a mask.

    The "or" between the words is that of `language`, English where there is none in `OR`.
    """
    if issubclass(method, Demux):
        return emotion_prompt(words, text, tokenizer, length, OR.get(language or "", OR["en"]))
    return masked_prompt(text, tokenizer, length)


def prompt_batch(
    keys: Sequence[str], prompts: Sequence[Prompt], labels: Tensor | None = None
) -> Batch:
    """A batch as `PromptedMethod` wants it."""
    return Batch(
        tuple(keys),
        {"text": Padded.stack([prompt.ids for prompt in prompts])},
        {} if labels is None else {"emotions": labels},
        {"token_label": Padded.stack([prompt.token_label for prompt in prompts])},
    )


@torch.no_grad()
def predict_prompts(method: PromptedMethod, prompts: Sequence[Prompt]) -> Tensor:
    """(N, E) probabilities; prompts of like length are read together."""
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row].ids))
    predicted = torch.empty(len(prompts), len(method.emotions))
    device = next(method.parameters()).device
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = prompt_batch([str(row) for row in rows], [prompts[row] for row in rows])
        predicted[rows] = method.predict(batch.to(device))["emotions"].cpu()
    return predicted


def linear_baseline(backbone: str, parts: Mapping[str, DemuxTexts]) -> dict[str, Array]:
    """Name -> (N, E) probabilities by logistic regressions, one for each emotion.

    They read the mean state of a text by the backbone as it came. Strength and balance of present
    and absent are those of the best macro F1 on dev.

    Args:
        backbone: see `load_text_encoder`.
        parts: "train", "dev" and others.
    """
    texts = [text for some in parts.values() for text in some.texts]
    ends = np.cumsum([len(some) for some in parts.values()])
    together = text_vectors(backbone, texts).numpy()
    vectors = dict(zip(parts, np.split(together, ends[:-1]), strict=True))
    models = [
        OneVsRestClassifier(LogisticRegression(C=strength, class_weight=balance, max_iter=1000))
        for strength, balance in itertools.product(STRENGTHS, BALANCE)
    ]
    truth = parts["dev"].labels > 0
    with warnings.catch_warnings(action="ignore"):  # an emotion that all texts have
        best = best_on_dev(
            models,
            (vectors["train"], parts["train"].labels.numpy()),
            lambda model: macro_f1(truth, model.predict_proba(vectors["dev"]) > 0.5),
        )
    return {name: best.predict_proba(some).astype(np.float32) for name, some in vectors.items()}
