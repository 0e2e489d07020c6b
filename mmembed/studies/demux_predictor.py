"""From texts to any emotions that a user has words for: the methods of a demux run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mmembed.errors import CorruptError, UsageError
from mmembed.features.prompt import Tokenizer
from mmembed.features.social_text import normalise_post
from mmembed.methods.demux import Demux, PromptedMethod
from mmembed.nn.weights import load_weights
from mmembed.settings.finetune import DemuxRun
from mmembed.studies.demux import DEFAULT, new_method, trained_variants
from mmembed.studies.demux_data import predict_prompts, prompt_for
from mmembed.studies.predictors import TrainedRun, load_run
from mmembed.studies.scoring import Array
from mmembed.studies.text_vectors import load_text_encoder


@dataclass(frozen=True)
class TextPredictor:
    """The methods of one variant; predictions are means over the run's seeds.

    Attributes:
        run: that trained them.
        methods: one for each seed.
        tokenizer: of their text encoder.
    """

    run: TrainedRun[DemuxRun]
    methods: Sequence[PromptedMethod]
    tokenizer: Tokenizer

    @classmethod
    def from_run(cls, folder: Path, variant: str | None = None) -> TextPredictor:
        """Load a folder that `finetune demux` wrote, and the text encoder that it names.

        Args:
            folder: of the run.
            variant: by default "intra" where it was trained, else the first.

        Raises:
            UsageError: no such variant, or its text encoder is gone.
            CorruptError: no run of demux, or weights are missing or do not fit.
        """
        run = load_run(folder, DemuxRun)
        variants = trained_variants(run.settings)
        if not variants:
            raise CorruptError(f"{folder}: its run.json names no variant")
        name = variant or (DEFAULT if DEFAULT in variants else variants[0])
        if name not in variants:
            raise UsageError(f"{folder}: has no variant {name!r}; it has {', '.join(variants)}")
        methods = []
        for path in run.weights(name):
            backbone, tokenizer = load_text_encoder(run.settings.backbone)
            method = new_method(run.settings, name, backbone, tokenizer)
            load_weights(method, path)
            methods.append(method.eval())
        return cls(run, methods, tokenizer)

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
        if unknown := [word for word in words if word not in known]:
            raise UsageError(
                f"MEmo knows the emotions of its training alone, not {unknown[0]!r}: "
                f"ask for some of {', '.join(known)}"
            )
        length = self.run.settings.length
        prompts = [
            prompt_for(kind, normalise_post(text), words, self.tokenizer, length) for text in texts
        ]
        each = torch.stack([predict_prompts(method, prompts) for method in self.methods])
        columns = [known.index(word) for word in emotions]
        return each.mean(0)[:, columns].numpy()
