"""Pre-trained methods scored: shared before anything is read, nothing kept, nothing guessed."""

from __future__ import annotations

import re
import sys
import weakref
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.pretraining import clip, write_clips

import mmembed
from mmembed.data.item import Item
from mmembed.data.loader import SpeechItems, TrainingLoader
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.pretraining.evaluation import (
    BATCH_SIZE,
    Transcribed,
    evaluate_speech,
    quick_scores,
    speech_scores,
    transcribe,
)
from mmembed.pretraining.pretrain_data import TrainingCorpus, open_corpus
from mmembed.settings.encoder import EncoderConfig
from mmembed.settings.methods import CtcSpeakerConfig
from mmembed.settings.pretrain import Augmentation, DataConfig, VocabularyConfig
from mmembed.streams import stream_subsets
from mmembed.training.distributed import ALONE, World


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TrainingCorpus:
    """Two folders of one base name: the first whole, the second in parts."""
    root = tmp_path_factory.mktemp("corpora")
    whole = [clip(n, 60 + n, split="train" if n < 6 else "heldout") for n in range(46)]
    parts = [
        clip(n, 60, split="heldout", streams=streams)
        for n, streams in enumerate([*stream_subsets(), ("text",)], 100)
    ]
    write_clips(root / "a" / "made" / "shards", whole)
    write_clips(root / "b" / "made" / "shards", [*parts, clip(200, 60, streams=("text",))])
    folders = tuple(str(root / name / "made" / "shards") for name in "ab")
    return open_corpus(DataConfig(folders, vocabulary=VocabularyConfig(40, "unigram")))


@pytest.fixture(scope="module")
def method(corpus: TrainingCorpus) -> CtcSpeaker:
    torch.manual_seed(0)
    encoder = EncoderConfig(
        vocabulary_size=len(corpus.subwords), width=16, num_heads=2, audio_layers=1,
        audio_channels=4, video_channels=4,
    )  # fmt: skip
    return CtcSpeaker(
        CtcSpeakerConfig(encoder, num_speakers=4, alphabet_size=len(corpus.alphabet))
    ).eval()


class Counted(SpeechItems):
    """A test set that counts what is read of it, and how much of that is kept."""

    def __init__(self, tests: SpeechItems) -> None:
        vars(self).update(vars(tests))
        self.numbers: list[int] = []
        self.items: list[weakref.ref[Item]] = []
        self.most: list[int] = []

    def read(self, number: int) -> Item:
        item = super().read(number)
        self.numbers.append(number)
        self.items.append(weakref.ref(item))
        self.most.append(sum(one() is not None for one in self.items))
        return item


class Part(World):
    """One process of several, without the others."""

    def collect(self, value: Any) -> list[Any]:
        return [value]


SUBSETS = stream_subsets(("audio", "video"))


def test_each_process_reads_its_own_part_once(corpus: TrainingCorpus, method: CtcSpeaker) -> None:
    counted = [Counted(corpus.test_set("heldout")) for _ in range(3)]
    parts = [
        transcribe(method, tests, SUBSETS, corpus.alphabet, Part(rank, 3, torch.device("cpu")))
        for rank, tests in enumerate(counted)
    ]
    usable = np.flatnonzero((counted[0].lengths[:, :2] > 0).any(1)).tolist()
    assert sorted(n for tests in counted for n in tests.numbers) == usable
    assert max(len(t.numbers) for t in counted) - min(len(t.numbers) for t in counted) <= 1
    whole = transcribe(method, corpus.test_set("heldout"), SUBSETS, corpus.alphabet, ALONE)
    for subset, heard in whole.items():
        assert {h.number for part in parts for h in part[subset]} == {h.number for h in heard}
        assert [h.number for h in heard] == sorted(h.number for h in heard)


def test_nothing_read_is_kept(corpus: TrainingCorpus, method: CtcSpeaker) -> None:
    tests = Counted(corpus.test_set("heldout"))
    transcribe(method, tests, SUBSETS, corpus.alphabet, ALONE)
    assert len(tests.numbers) > 2 * BATCH_SIZE >= max(tests.most)


def test_each_stream_subset_is_scored_on_what_has_it(
    corpus: TrainingCorpus, method: CtcSpeaker
) -> None:
    """By hand: 40 whole clips; of the seven subsets six have sound or pictures."""
    scores = evaluate_speech(method, corpus, ALONE)
    assert set(scores) == {"heldout", "fusion_weights", "layer_weights"}
    heldout = scores["heldout"]
    assert {name: s["utterances"] for name, s in heldout["by_streams"].items()} == {
        "audio": 44, "video": 44, "audio+video": 46,
    }  # fmt: skip
    assert heldout["utterances"] == 46 and len(heldout["samples"]) == 12
    assert {name: s["utterances"] for name, s in heldout["by_corpus"].items()} == {
        "a/made": 40, "b/made": 6,
    }  # fmt: skip
    assert quick_scores(method, corpus, ALONE) == {"speaker_accuracy": heldout["speaker_accuracy"]}


def test_speaker_scores_by_hand() -> None:
    heard = [
        Transcribed(n, str(n), "", "a", speaker, predicted)
        for n, (speaker, predicted) in enumerate([(0, 0), (0, 1), (1, 1), (2, 2), (-1, 0), (0, 0)])
    ]
    assert speech_scores(heard) == {
        "utterances": 6, "speaker_accuracy": 4 / 5, "speakers": 3,
        "chance_speaker_accuracy": 3 / 5,
    }  # fmt: skip
    assert speech_scores([]) == {"utterances": 0}


def test_a_batch_passes_the_files_that_the_architecture_lists(
    corpus: TrainingCorpus, method: CtcSpeaker
) -> None:
    """From the shard to the sums of the loss: 13 files of ours, in docs/architecture.md."""
    loader = TrainingLoader(corpus.train.read, corpus.train.frames, Augmentation(), 0)
    draws = loader.draw(0, np.arange(6))
    loader.micro_batches(draws)  # opens the shards
    package, called = Path(mmembed.__file__).parent, set[str]()

    def note(frame: FrameType, event: str, argument: object) -> None:
        called.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        (batch,) = loader.micro_batches(draws)
        terms = method(batch)
    finally:
        sys.setprofile(None)
    assert set(terms) == {"ctc", "speaker", "masked_text"}
    passed = {str(Path(name).relative_to(package)) for name in called if str(package) in name}
    text = (package.parent / "docs" / "architecture.md").read_text()
    _, _, section = text.partition("## One batch through the code")
    listed = re.findall(r"^\| \d+ \| `(.+?)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert passed == set(listed) and len(listed) == 12
