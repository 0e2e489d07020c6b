"""SDT on dialogues (MELD, IEMOCAP), beside its ablations and a classifier of single turns.

Items are dialogues, what is scored are their labelled turns. "Without context" is the same network
on turns that each are a dialogue of their own. Speakers are numbered by their first turn in the
dialogue, or by gender as the authors do on IEMOCAP (`mmembed.methods.sdt`). Where no epoch is
chosen on dev, its dialogues are trained on, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.errors import UsageError
from mmembed.io.json import write_json
from mmembed.method import Method
from mmembed.methods.sdt import SDT, Explanation, balanced_weights
from mmembed.metrics.classes import weighted_f1
from mmembed.settings.finetune import SDTRun
from mmembed.studies.baselines import logistic_regression
from mmembed.studies.scoring import Array, TestSet
from mmembed.studies.sdt_data import Dialogue, read_dialogues, to_batch
from mmembed.studies.study import Study, Trained

ALONE: Final = "without context"
VARIANTS: Final = ("sdt", "without distillation", "without speakers", ALONE)
STRENGTHS: Final = (1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression, chosen on dev
EXPLAINED: Final = 2  # dialogues shown in the report
EXPLAINED_TURNS: Final = 12  # of each, from its start


class SDTStudy(Study):
    """Variants: SDT, without distillation, without speakers, without context."""

    def __init__(self, run: SDTRun) -> None:
        self._by_gender = run.speakers == "gender"
        data = read_dialogues(
            run.shards,
            run.backbone,
            run.embeddings,
            by_gender=self._by_gender,
            standardise=run.standardise,
        )
        self._splits = dict(data.splits)
        if run.loop.select != "dev":
            self._splits["train"] = [*data.splits["train"], *data.splits["dev"]]
        self.variants = _variants(run, data.num_speakers)
        categories = {
            split: Counter(row.labels.category or "" for one in dialogues for row in one.rows)
            for split, dialogues in data.splits.items()
        }
        self.notes = [
            f"not scored: {split} has {count} turns of class {name!r}, training none"
            for split, counts in categories.items()
            for name, count in sorted(counts.items())
            if name and name not in data.classes
        ]
        train = self._emotions("train")
        balanced = balanced_weights(np.bincount(train).tolist()) if run.balanced else ()
        self.run: SDTRun = replace(
            run,
            method=replace(
                run.method,
                streams=tuple(data.widths),
                input_widths=tuple(data.widths.values()),
                num_classes=len(data.classes),
                num_speakers=data.num_speakers,
                class_weights=balanced,
            ),
        )
        tested = [row for dialogue in self._labelled("test") for row in dialogue.rows]
        self.tests = {
            "test": TestSet(
                "classes",
                "weighted_f1",
                tuple(row.key for row in tested),
                tuple(str(row.dialogue) for row in tested),
                self._emotions("test"),
                train,
                data.classes,
                grouping="dialogue",
            )
        }

    def size(self, variant: str, split: str) -> int:
        """Dialogues of a split."""
        return len(self._splits[split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Dialogues, or their turns one by one."""
        dialogues = [self._splits[split][row] for row in rows]
        if variant == ALONE:
            dialogues = [turn for dialogue in dialogues for turn in dialogue.alone(self._by_gender)]
        return to_batch(dialogues)

    def method(self, variant: str) -> Method:
        """SDT, with less of it in ablations."""
        config = self.run.method
        if variant == "without distillation":
            config = replace(config, distillation_weight=0.0)
        if variant == "without speakers":
            config = replace(config, num_speakers=0)
        return SDT(config)

    @torch.no_grad()
    def predict(self, variant: str, test: str, method: Method) -> Array:
        """(N, C) logits of the labelled turns."""
        batch = self.batch(variant, test, range(self.size(variant, test)))
        logits = method.predict(batch)["turn_emotion"]
        emotion = batch.targets["turn_emotion"]
        assert isinstance(emotion, Padded)
        return logits[emotion.mask & (emotion.values != UNLABELLED)].numpy()

    def baselines(self, test: str) -> dict[str, Array]:
        """A logistic regression on the turn's own vectors, strength chosen on dev."""
        train, dev = ((self._turns(split), self._emotions(split)) for split in ("train", "dev"))
        model = logistic_regression(train, dev, weighted_f1, STRENGTHS)
        probabilities: Array = model.predict_proba(self._turns(test)).astype(np.float32)
        return {"logistic regression": probabilities}

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """How much each stream counts in the fused prediction; for the report, two dialogues."""
        methods = [method for method in trained(self.variants[0]) if isinstance(method, SDT)]
        dialogues = sorted(self._splits["test"], key=_telling, reverse=True)[:EXPLAINED]
        batch = to_batch(dialogues)
        with torch.no_grad():
            predicted = methods[0].predict(batch)["turn_emotion"].argmax(-1)
        explained = methods[0].explain(batch)
        shown = [
            self._explain(dialogue, predicted[item], explained, item)
            for item, dialogue in enumerate(dialogues)
        ]
        write_json(out / "explanations.json", {"dialogues": shown})
        everything = to_batch(self._splits["test"])
        gates: dict[str, list[float]] = {}  # stream -> mean over turns and dimensions, of each seed
        for method in methods:
            for name, each in method.explain(everything).multimodal.items():
                gates.setdefault(name, []).append(float(torch.cat(list(each)).mean()))
        return {"gates": {name: float(np.mean(means)) for name, means in gates.items()}}

    def _explain(
        self, dialogue: Dialogue, predicted: Tensor, explained: Explanation, item: int
    ) -> dict[str, Any]:
        """What the report shows of a dialogue's first turns; attention is the mean over heads."""
        names = self.tests["test"].names
        gates = {name: each[item].mean(-1) for name, each in explained.multimodal.items()}
        turns = [
            {
                "speaker": row.speaker,
                "text": row.transcript,
                "true": names[emotion] if emotion != UNLABELLED else None,
                "predicted": names[int(predicted[turn])],
                "gates": {name: round(float(gate[turn]), 3) for name, gate in gates.items()},
            }
            for turn, (row, emotion) in enumerate(
                zip(dialogue.rows, dialogue.emotion.tolist(), strict=True)
            )
        ][:EXPLAINED_TURNS]
        attention = {
            pair: np.round(each[item].mean(0).double().numpy(), 3)[
                :EXPLAINED_TURNS, :EXPLAINED_TURNS
            ].tolist()
            for pair, each in explained.attention.items()
        }
        return {"name": dialogue.name, "turns": turns, "attention": attention}

    def _emotions(self, split: str) -> NDArray[np.int64]:
        """(N,) classes of the labelled turns."""
        return torch.cat([dialogue.emotion for dialogue in self._labelled(split)]).numpy()

    def _turns(self, split: str) -> NDArray[np.float32]:
        """(N, all widths) vectors of the labelled turns, streams side by side."""
        parts = [torch.cat([*one.streams.values()], 1) for one in self._labelled(split)]
        return torch.cat(parts).numpy()

    def _labelled(self, split: str) -> list[Dialogue]:
        """Its dialogues, of each the labelled turns alone."""
        return [one.where(one.emotion != UNLABELLED) for one in self._splits[split]]


def _variants(run: SDTRun, num_speakers: int) -> tuple[str, ...]:
    """Those asked for, in the order of the table.

    Raises:
        UsageError: one that there is not.
    """
    there = tuple(name for name in VARIANTS if num_speakers or name != "without speakers")
    if unknown := [name for name in run.variants if name not in there]:
        raise UsageError(f"--variants {unknown[0]!r}: one of {', '.join(there)}")
    return tuple(name for name in there if name in (run.variants or there))


def _telling(dialogue: Dialogue) -> tuple[bool, int]:
    """Short enough to be shown, and of many emotions."""
    classes = set(dialogue.emotion.tolist()) - {UNLABELLED}
    return len(dialogue.rows) <= EXPLAINED_TURNS, len(classes)
