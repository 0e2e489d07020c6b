"""Self-MM on the pickles of MOSI, MOSEI and CH-SIMS as MMSA runs it (github.com/thuiar/MMSA).

Its network, its groups of rates, BERT trained end to end, features as they are, lengths as they are
told. Self-MM alone is trained. What differs: labels move once a step, not after each of its four
batches, and of an epoch's last batches, fewer than four, a step is made, where MMSA drops them
(`mmembed.methods.self_mm`); transcripts are tokenised here, where MMSA has tokens in `text_bert`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.settings.papers import SelfMmPaperRun
from mmembed.studies.self_mm import SelfMmBase
from mmembed.studies.self_mm_data import (
    SelfMmItems,
    cut_at_zeros,
    read_items,
    standardised,
    with_tokens,
)
from mmembed.studies.text_vectors import load_text_encoder
from mmembed.training.optim import OwnRate


class SelfMmPaperStudy(SelfMmBase):
    """See the module's docstring."""

    def __init__(self, run: SelfMmPaperRun) -> None:
        if not run.shards:
            raise UsageError("no data: give --shards DIR, a folder of prepared features")
        folder = Path(run.backbone)
        if run.backbone and folder.is_dir():
            run = replace(run, backbone=str(folder.resolve()))
        self.run: SelfMmPaperRun = run
        self.large = bool(run.backbone)
        self.variants = ("self_mm",)
        self._begin(read_items(Path(run.shards)), Path(run.shards))

    def _as_read(self, splits: Mapping[str, SelfMmItems]) -> dict[str, SelfMmItems]:
        """Not standardised; text as tokens, if there is an encoder to read them."""
        run, read = self.run, dict(splits)
        if run.cut_at_zeros:
            read = {split: cut_at_zeros(items) for split, items in read.items()}
        if run.backbone:
            _, tokenizer = load_text_encoder(run.backbone)
            read = {
                split: with_tokens(items, tokenizer, run.length) for split, items in read.items()
            }
            if not any(map(len, read["train"].streams["text"])):
                raise UsageError(f"{run.shards}: no training item has a transcript to read")
        return read

    @cached_property
    def _compared(self) -> Mapping[str, SelfMmItems]:
        """See `SelfMmBase`: standardised, text as features."""
        return standardised(self._plain)

    def method(self, variant: str) -> Method:
        """The network of MMSA: text as it is in the fusion, sound and pictures by an LSTM each."""
        run, train = self.run, self._splits["train"]
        encoder = load_text_encoder(run.backbone)[0] if run.backbone else None
        configs = []
        for name, items in train.streams.items():
            if name == "text":
                config = StreamConfig(
                    name,
                    encoder.width if encoder else items[0].shape[1],
                    "tokens" if encoder else self._reading(name),
                    post=run.text.post,
                    post_dropout=run.text.post_dropout,
                )
            else:
                own = run.audio if name == "audio" else run.video
                config = StreamConfig(
                    name,
                    items[0].shape[1],
                    self._reading(name),
                    hidden=own.hidden,
                    out=own.out,
                    post=own.post,
                    post_dropout=own.post_dropout,
                )
            configs.append(config)
        sizes = SelfMmConfig(
            streams=tuple(configs),
            items=len(train),
            fusion=run.fusion,
            fusion_dropout=run.fusion_dropout,
            limit=float(train.sentiment.abs().max()),
        )
        return SelfMm(sizes, encoder)

    def own_rates(self, variant: str, method: Method) -> Sequence[OwnRate]:
        """MMSA's groups: BERT's matrices, its vectors, sound, pictures; the rest is the run's."""
        assert isinstance(method, SelfMm)
        run, rates = self.run, []
        for name, reader in method.readers.items():
            parameters = list(reader.parameters())
            if name == "text":
                for matrices, decay in ((True, run.text.weight_decay), (False, 0.0)):
                    some = [p for p in parameters if (p.ndim > 1) is matrices]
                    rates.append(OwnRate(some, run.text.lr, decay))
            else:
                own = run.audio if name == "audio" else run.video
                rates.append(OwnRate(parameters, own.lr, own.weight_decay))
        return rates
