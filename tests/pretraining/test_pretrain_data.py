"""What a run learns from: corpora by weight, batches by recipe, transcripts that fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.pretraining import clip, write_clips

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import UsageError
from mmembed.pretraining.pretrain_data import corpus_names, open_corpus
from mmembed.settings.pretrain import RECIPES, Augmentation, DataConfig, VocabularyConfig

SIZES = {"one": 4, "two": 6}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, ...]:
    """Clips of 0.4 s and more; the first of each corpus is of dev, the second says too much."""
    for name, size in SIZES.items():
        records = []
        for number in range(size + 1):
            words = "so many words in no time" if number == 1 else "two"
            row = Utterance(
                f"{name}-{number}", None, transcript=words, split="train" if number else "dev"
            )
            audio = np.zeros(6_400 + 640 * number, np.int16)
            records.append(Record(*to_record(Example(row, audio=audio, text=words))))
        write_shard(shard_path(tmp_path / name, 0), records, {})
    return tuple(str(tmp_path / name) for name in SIZES)


def settings(folders: tuple[str, ...], *weights: float) -> DataConfig:
    small = VocabularyConfig(20, "char")
    return DataConfig(folders, weights=weights, vocabulary=small, alphabet=small, frames=100)


def test_impossible_transcripts_are_counted_by_key(folders: tuple[str, ...]) -> None:
    corpus = open_corpus(settings(folders))
    assert corpus.impossible == ["one-1", "two-1"]
    assert corpus.train.frames.tolist() == [11, 12, 13, 14, 11, 12, 13, 14, 15, 16]


def test_letters_of_a_pretrained_recogniser(folders: tuple[str, ...], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"TWO'SĆ"]

    def write(name: str, tokens: list[str]) -> str:
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
        transformers.Wav2Vec2CTCTokenizer(file).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    config = replace(settings(folders), alphabet_of=write("letters", tokens))
    corpus = open_corpus(config)
    alphabet = corpus.alphabet
    assert sorted(alphabet.decode([i]) for i in range(3, len(alphabet))) == ["", *sorted("'ostwć")]
    assert alphabet.decode(alphabet.encode("two two's ć")) == "two two's ć"
    assert corpus.train.units.to_pylist()[1] == alphabet.encode("two")
    assert corpus.unknown_letters == 2  # "so many words in no time", once a corpus
    assert open_corpus(settings(folders)).unknown_letters == 0
    with pytest.raises(UsageError, match="parts of words such as TH"):
        open_corpus(replace(config, alphabet_of=write("parts", [*tokens, "TH"])))
    with pytest.raises(UsageError, match="no such folder"):
        open_corpus(replace(config, alphabet_of=str(tmp_path / "none")))


def test_an_epoch_has_each_corpus_as_often_as_its_weight_says(folders: tuple[str, ...]) -> None:
    corpus = open_corpus(settings(folders, 2.0, 0.5))
    assert corpus.train.examples.sizes == (4, 6)
    epochs = [corpus.plan(seed=0, epoch=epoch).order % 10 for epoch in (0, 1)]
    for order in epochs:
        assert sorted(order[order < 4].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert (order >= 4).sum() == 3
    assert sorted(x for order in epochs for x in order.tolist() if x >= 4) == [4, 5, 6, 7, 8, 9]
    once = open_corpus(settings(folders)).plan(seed=0, epoch=0)
    assert sorted(once.order.tolist()) == list(range(10))


def test_weights_that_do_not_fit_are_refused(folders: tuple[str, ...]) -> None:
    for weights in ((1.0,), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(UsageError, match=r"--data\.weights"):
            open_corpus(settings(folders, *weights))


def test_budgets_and_pools_that_mean_nothing_are_refused(folders: tuple[str, ...]) -> None:
    for change in ({"frames": 0}, {"pool": -1}):
        with pytest.raises(UsageError, match=r"--data\.frames .* --data\.pool"):
            open_corpus(replace(settings(folders), **change))  # type: ignore[arg-type]


def test_small_recipes_have_random_batches_and_large_ones_sorted() -> None:
    sorted_ones = {name for name, recipe in RECIPES.items() if recipe().data.pool}
    assert sorted_ones == {"base", "large"}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("data/arctic/shards", "data/fsdd/shards"), ("arctic", "fsdd")),
        (("a/data/shards", "b/data/shards", "c/shards"), ("a/data", "b/data", "c")),
        (("x/a/data", "y/a/data/shards/"), ("x/a/data", "y/a/data")),
        (("s3://bucket/grid/shards", "grid/shards"), ("bucket/grid", "HERE/grid")),
        (("one", "one/shards", "./one"), ("one", "one (2)", "one (3)")),
        (("./shards",), ("HERE",)),
    ],
)
def test_each_folder_has_a_name_of_its_own(
    given: tuple[str, ...], names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert corpus_names(given) == tuple(name.replace("HERE", tmp_path.name) for name in names)


def test_labels_are_counted_where_something_is_read_that_tells_them(tmp_path: Path) -> None:
    def counts(*streams: str, **changes: object) -> dict[str, int]:
        config = replace(settings((str(tmp_path),)), streams=streams, **changes)
        return open_corpus(config).labelled  # type: ignore[arg-type]

    clips = [
        clip(0, 100), clip(1, 100, streams=("audio",), speaker=None), clip(2, 8),
        clip(3, 100, streams=("text",)), clip(4, 100, streams=("video",), transcript=None),
    ]  # fmt: skip
    write_clips(tmp_path, clips)
    assert counts("audio", "video", "text") == {"transcript": 2, "speaker": 3, "masked_text": 3}
    assert counts("audio") == {"transcript": 2, "speaker": 2, "masked_text": 0}
    assert counts("text") == {"transcript": 0, "speaker": 0, "masked_text": 3}
    unhidden = Augmentation(mask_text=0.0)
    assert counts("text", augmentation=unhidden)["masked_text"] == 0
    config = replace(settings((str(tmp_path),)), streams=("text",))
    assert open_corpus(config).impossible == []  # nothing in a text has to be aligned
