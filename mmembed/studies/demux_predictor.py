"""From texts to any emotions that a user has words for: the methods of a demux run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from mmembed.backbones.text import load_backbone
from mmembed.config import from_dict, read_json
from mmembed.embedder.card import NOT_RECORDED
from mmembed.errors import CorruptError, UsageError
from mmembed.features.prompt import Tokenizer
from mmembed.features.social_text import normalise_post
from mmembed.methods.demux import Demux, PromptedMethod
from mmembed.nn.weights import load_weights
from mmembed.studies import trained_on
from mmembed.studies.demux import DEFAULT, DemuxRun, new_method, trained_variants
from mmembed.studies.demux_data import judge, prompt_for
from mmembed.studies.scoring import Array


class TextPredictor:
    """The methods of one variant; answers are means over the run's seeds.

    Attributes:
        methods: one for each seed.
        trained_on: what they were trained on, in one line.
    """

    def __init__(
        self,
        methods: Sequence[PromptedMethod],
        tokenizer: Tokenizer,
        length: int,
        trained_on: str = NOT_RECORDED,
    ) -> None:
        self.methods = methods
        self.trained_on = trained_on
        self._tokenizer, self._length = tokenizer, length

    @classmethod
    def from_run(cls, folder: Path, variant: str | None = None) -> TextPredictor:
        """Load a folder that `finetune demux` wrote, and the text encoder that it names.

        Args:
            folder: of the run.
            variant: by default "intra" where it was trained, else the first.

        Raises:
            UsageError: no run of demux, no such variant, or its text encoder is gone.
            CorruptError: weights are missing or do not fit.
        """
        run = read_demux_run(folder)
        variants = trained_variants(run)
        if not variants or not run.loop.seeds:
            raise CorruptError(f"{folder}: its run.json names no variant or no seed")
        name = variant or (DEFAULT if DEFAULT in variants else variants[0])
        if name not in variants:
            raise UsageError(f"{folder}: has no variant {name!r}; it has {', '.join(variants)}")
        methods = []
        for seed in run.loop.seeds:
            backbone, tokenizer = load_backbone(run.backbone)
            method = new_method(run, name, backbone, tokenizer)
            load_weights(method, folder / name / f"seed-{seed}.safetensors")
            methods.append(method.eval())
        data = trained_on.read(folder)
        known = NOT_RECORDED if data is None else str(data)
        return cls(methods, tokenizer, run.length, known)

    def __call__(self, texts: Sequence[str], emotions: Sequence[str]) -> Array:
        """(N, E) probabilities.

        Words are asked in alphabetical order, as in training: the order given changes none.

        Args:
            texts: N.
            emotions: E words or clusters ("hope or optimism"); of MEmo those of its training.

        Raises:
            UsageError: MEmo is asked for others, or the words leave no room for a text.
        """
        words = tuple(sorted(emotions))
        kind = type(self.methods[0])
        for method in self.methods:
            if isinstance(method, Demux):
                method.ask(words)
        known = self.methods[0].emotions
        strange = [word for word in words if word not in known]
        if strange:
            raise UsageError(
                f"MEmo knows the emotions of its training alone, not {strange[0]!r}: "
                f"ask for some of {', '.join(known)}"
            )
        prompts = [
            prompt_for(kind, normalise_post(text), words, self._tokenizer, self._length)
            for text in texts
        ]
        likely = torch.stack([judge(method, prompts) for method in self.methods]).mean(0)
        answers: Array = likely[:, [known.index(word) for word in emotions]].numpy()
        return answers


def read_demux_run(folder: Path) -> DemuxRun:
    """The settings of a finished run.

    Raises:
        UsageError: the folder is of no run of demux.
        CorruptError: its run.json is damaged.
    """
    path = folder / "run.json"
    settings = read_json(path) if path.is_file() else {}
    if settings.get("name") != DemuxRun.name:
        raise UsageError(
            f"{folder}: holds no run of demux, as mmembed finetune demux --out leaves it"
        )
    try:
        return from_dict(DemuxRun, settings)
    except UsageError as error:
        raise CorruptError(f"{path}: {error}") from None
