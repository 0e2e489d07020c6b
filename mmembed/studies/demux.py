"""Demux and MEmo on texts with several labels, and what Demux says of what it was not trained on.

Variants are losses, and MEmo. A run asks for one of four things:

    (nothing)         the test split, by the emotions of training
    test_languages    the test split of each of these languages; training may know another alone
    leave_out         each of these emotions, by a method that was trained without it and by one
                      that knows it; word embeddings of all emotions stay as they came
    clusters          the test split in another format: emotions in groups, asked as one prompt of
                      clusters, or each member by itself
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import Tensor

from mmembed.backbones.text import TextEncoder, TextTokenizer
from mmembed.batch import Batch
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.features.emotion_words import members, parse_emotions
from mmembed.features.prompt import Prompt, emotion_prompt
from mmembed.method import Method
from mmembed.methods.demux import Demux, DemuxConfig, Memo, MemoConfig, PromptedMethod
from mmembed.metrics.multilabel import macro_f1
from mmembed.settings.finetune import DemuxRun
from mmembed.studies.demux_data import (
    DemuxTexts,
    linear_baseline,
    predict_prompts,
    prompt_batch,
    prompt_for,
    read_rows,
)
from mmembed.studies.groups import group_items
from mmembed.studies.scoring import Array, TestSet, finite
from mmembed.studies.study import Study, Trained, decided
from mmembed.studies.text_vectors import load_text_encoder
from mmembed.studies.trained_on import TrainedOn, describe

VARIANTS: Final = ("bce", "inter", "intra", "complete", "intra+global", "memo")
DEFAULT: Final = "intra"  # the papers' choice
WITHOUT: Final = " without "

Columns = tuple[tuple[int, ...], ...]


def trained_variants(run: DemuxRun) -> tuple[str, ...]:
    """What a run trains: its variants, and each without each emotion that is left out."""
    return tuple(
        variant + (WITHOUT + emotion if emotion else "")
        for variant in run.variants
        for emotion in ("", *run.leave_out)
    )


def kind_of(variant: str) -> type[PromptedMethod]:
    """The method of a variant."""
    return Memo if variant == "memo" else Demux


def emotions_of(run: DemuxRun, variant: str) -> tuple[str, ...]:
    """The emotions a variant is trained on."""
    left_out = variant.partition(WITHOUT)[2]
    return tuple(emotion for emotion in run.emotions if emotion != left_out)


def new_method(
    run: DemuxRun, variant: str, backbone: TextEncoder, tokenizer: TextTokenizer
) -> PromptedMethod:
    """The untrained method of a variant, around a backbone that becomes its own."""
    loss = variant.partition(WITHOUT)[0]
    frozen: tuple[int, ...] = ()
    if run.leave_out:
        prompt = emotion_prompt(run.emotions, "", tokenizer, run.length)
        frozen = tuple(sorted(set(prompt.ids[prompt.token_label >= 0].tolist())))
    config = DemuxConfig(
        emotions=emotions_of(run, variant),
        local="inter" if loss == "inter" else "complete" if loss == "complete" else "intra",
        local_weight=0.0 if loss == "bce" else run.local_weight,
        local_pairs=run.local_pairs,
        local_form=run.local_form,
        global_weight=run.global_weight if loss == "intra+global" else 0.0,
        global_pairs=run.global_pairs,
        global_form=run.global_form,
        dropout=run.dropout,
        frozen=frozen,
    )
    backbone.separator = tokenizer.separator
    backbone.freeze(run.freeze)
    if kind_of(loss) is Memo:
        return Memo(MemoConfig(**vars(config)), backbone)
    return Demux(config, backbone)


@dataclass(frozen=True)
class PromptedTest:
    """How a method is prompted in a test.

    Attributes:
        part: name of its texts.
        names: of its labels.
        columns: of each label, the emotions of training of which one has to be present.
        words: what stands in Demux's prompt. With the emotions of training a label gets the
            highest probability of its columns. Other words are the labels themselves.
        cluster: how Demux makes one logit of a cluster.
    """

    part: str
    names: tuple[str, ...]
    columns: Columns
    words: tuple[str, ...]
    cluster: Literal["mean", "max"] = "mean"


class DemuxStudy(Study):
    """See the module's docstring."""

    large = True

    def __init__(self, run: DemuxRun) -> None:
        rows = read_rows(run.shards)
        parts = {split: _of(rows[split], run.language) for split in ("train", "dev")}
        if run.loop.select != "dev":  # nothing is chosen on it
            parts["train"] = [*parts["train"], *parts["dev"]]
        tests = {name: name for name in run.test_languages} or {"test": run.language}
        parts |= {name: _of(rows["test"], language) for name, language in tests.items()}
        for name, part in parts.items():
            if not part:
                there = ", ".join(sorted({row.language or "?" for row in rows["test"]}))
                raise UsageError(f"{run.shards}: no text for {name}; its languages are {there}")
        self.run: DemuxRun = _complete(run, parts["train"])
        self._parts = {name: DemuxTexts.of(part, self.run.emotions) for name, part in parts.items()}
        self._data = describe([run.shards], parts["train"], "texts")
        self._prompted = _prompted_tests(self.run, list(tests))
        self.variants = trained_variants(self.run)
        tests_of = {test: self._test_set(prompted) for test, prompted in self._prompted.items()}
        self.tests, self.notes = decided(tests_of, self.run.shards)
        _, self._tokenizer = load_text_encoder(self.run.backbone)
        self._prompts: dict[object, list[Prompt]] = {}

    def _test_set(self, prompted: PromptedTest) -> TestSet:
        texts, train = self._parts[prompted.part], self._parts["train"]
        truth, known = (_pool(some.labels, prompted.columns).numpy() for some in (texts, train))
        groups, names = group_items(texts.rows, "text"), prompted.names
        return TestSet(
            "labels", "macro_f1", texts.keys, groups.names, truth, known, names, groups.kind
        )

    def trained_on(self) -> TrainedOn:
        """See `Study`."""
        return TrainedOn((self._data,))

    def size(self, variant: str, split: str) -> int:
        """Texts of a split."""
        return len(self._parts[split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their prompts, and the emotions that the variant is trained on."""
        keys, prompts = self._parts[split].keys, self._trained_on(variant, split)
        return prompt_batch(
            [keys[row] for row in rows],
            [prompts[row] for row in rows],
            self._labels(variant, split)[list(rows)],
        )

    def lengths(self, variant: str) -> list[int]:
        """Tokens of each training text with its prompt."""
        return [len(prompt.ids) for prompt in self._trained_on(variant, "train")]

    def _labels(self, variant: str, split: str) -> Tensor:
        """(N, E) of the emotions that a variant is trained on."""
        known = emotions_of(self.run, variant)
        columns = [self.run.emotions.index(emotion) for emotion in known]
        return self._parts[split].labels[:, columns]

    def _trained_on(self, variant: str, split: str) -> list[Prompt]:
        return self._read(kind_of(variant), split, emotions_of(self.run, variant))

    def _read(self, kind: type[PromptedMethod], part: str, words: tuple[str, ...]) -> list[Prompt]:
        """The prompts of some texts; each is made once."""
        key = kind, part, words
        if key not in self._prompts:
            texts = self._parts[part]
            self._prompts[key] = [
                prompt_for(kind, text, words, self._tokenizer, self.run.length, language)
                for text, language in zip(texts.texts, self._languages(texts), strict=True)
            ]
        return self._prompts[key]

    def _languages(self, texts: DemuxTexts) -> list[str | None]:
        """Of each text, where the prompt follows it."""
        follow = self.run.disjunction == "text"
        return [row.language if follow else None for row in texts.rows]

    def method(self, variant: str) -> Method:
        """Demux or MEmo around the pretrained backbone, with the correlation of the labels."""
        backbone, tokenizer = load_text_encoder(self.run.backbone)
        method = new_method(self.run, variant, backbone, tokenizer)
        method.correlate(self._labels(variant, "train"))
        return method

    def predict(self, variant: str, test: str, method: Method) -> Array | None:
        """Probabilities; None of MEmo for new words, and of methods made for another test."""
        prompted = self._prompted[test]
        left_out = variant.partition(WITHOUT)[2]
        if left_out and left_out != test:
            return None
        if isinstance(method, Demux):
            method.ask(prompted.words)
            method.config = replace(method.config, cluster=prompted.cluster)
        assert isinstance(method, PromptedMethod)
        if method.emotions != prompted.words:
            return None
        prompts = self._read(type(method), prompted.part, prompted.words)
        predicted = predict_prompts(method, prompts)
        if prompted.words == self.run.emotions:
            predicted = _pool(predicted, prompted.columns)
        return predicted.numpy()

    def baselines(self, test: str) -> dict[str, Array]:
        """Logistic regressions on the backbone as it came; they know the emotions of all tests."""
        prompted = self._prompted[test]
        predicted = torch.from_numpy(self._linear[prompted.part])
        return {"logistic regression": _pool(predicted, prompted.columns).numpy()}

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """Macro F1 on dev, of the emotions a variant was trained on: to choose settings by.

        Of those that dev has; None where it has none.
        """

        def dev(variant: str, method: Method) -> float | None:
            assert isinstance(method, PromptedMethod)
            predicted = predict_prompts(method, self._trained_on(variant, "dev"))
            truth = self._labels(variant, "dev")
            shown = (truth > 0).any(0)
            return finite(macro_f1(truth[:, shown], predicted[:, shown] > 0.5))

        return {
            "dev_macro_f1": {
                variant: [dev(variant, method) for method in trained(variant)]
                for variant in self.variants
            }
        }

    @cached_property
    def _linear(self) -> dict[str, Array]:
        return linear_baseline(self.run.backbone, self._parts)


def _of(rows: Sequence[Utterance], language: str) -> list[Utterance]:
    return [row for row in rows if language in ("", row.language)]


def _pool(labels: Tensor, columns: Columns) -> Tensor:
    """(N, E) -> (N, len(columns)): the largest of some columns each."""
    return torch.stack([labels[:, list(some)].amax(1) for some in columns], 1)


def _complete(run: DemuxRun, train: Sequence[Utterance]) -> DemuxRun:
    """The run with the emotions, variants and folder that it means.

    Raises:
        UsageError: a setting that is none, or that does not go with another.
    """
    if not run.backbone:
        raise UsageError("no text encoder: give --backbone, a folder or a name on the hub")
    if sum(map(bool, (run.test_languages, run.leave_out, run.clusters))) > 1:
        raise UsageError("--test-languages, --leave-out and --clusters are runs of their own")
    present = {name for row in train for name in row.labels.present or ()}
    emotions = tuple(sorted(set(run.emotions or present)))
    if not emotions:
        raise UsageError(f"{run.shards}: no training text has any emotion")
    if missing := [name for name in emotions if present.isdisjoint(members(name))]:
        raise UsageError(f"{run.shards}: no training text has the emotion {missing[0]!r}")
    variants = run.variants or ((DEFAULT,) if run.leave_out else VARIANTS)
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise UsageError(f"--variants {unknown[0]}: one of {', '.join(VARIANTS)}")
    if run.leave_out and "memo" in variants:
        raise UsageError("--leave-out: MEmo cannot be asked for an emotion that it has not seen")
    if stray := [emotion for emotion in run.leave_out if emotion not in emotions]:
        raise UsageError(f"--leave-out {stray[0]}: one of {', '.join(emotions)}")
    folder = Path(run.backbone)
    backbone = str(folder.resolve()) if folder.is_dir() else run.backbone
    return replace(run, emotions=emotions, variants=variants, backbone=backbone)


def _prompted_tests(run: DemuxRun, parts: Sequence[str]) -> dict[str, PromptedTest]:
    """Test -> how a method is prompted in it."""
    own: Columns = tuple((place,) for place in range(len(run.emotions)))
    if run.leave_out:
        return {
            emotion: PromptedTest(
                parts[0], (emotion,), ((run.emotions.index(emotion),),), run.emotions
            )
            for emotion in run.leave_out
        }
    found = {part: PromptedTest(part, run.emotions, own, run.emotions) for part in parts}
    if run.clusters:
        names = tuple(sorted(parse_emotions(run.clusters)))
        columns = tuple(
            tuple(n for n, emotion in enumerate(run.emotions) if emotion in members(name))
            for name in names
        )
        if not all(columns):
            lost = names[columns.index(())]
            raise UsageError(f"--clusters: {lost!r} has none of {', '.join(run.emotions)}")
        clusters = PromptedTest(parts[0], names, columns, names)
        found["clusters by mean"] = clusters
        found["clusters by max"] = replace(clusters, cluster="max")
        found["clusters by member"] = replace(clusters, words=run.emotions)
    return found
