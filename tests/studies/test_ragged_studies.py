"""The other studies on ragged data: nothing shifts, nobody is in two splits, all is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ragged
from helpers.prepared import described, embedding, write_embeddings
from helpers.tiny_bert import write_bert, write_random_bert
from mmembed_train.finetune import main
from sklearn.metrics import f1_score

from mmembed.commands.cli import run_program
from mmembed.commands.compare import main as compare
from mmembed.commands.inspect import main as inspect
from mmembed.commands.report import main as report
from mmembed.commands.verify import main as verify
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, ShardSet, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import UsageError
from mmembed.settings.finetune import EmotionQueriesRun, LayerAnchorRun, SelfMmRun
from mmembed.studies.emotion_queries import EmotionQueriesStudy
from mmembed.studies.emotion_queries_data import ADJECTIVES
from mmembed.studies.layer_anchor import LayerAnchorStudy
from mmembed.studies.results import TestPredictions
from mmembed.studies.self_mm import SelfMmStudy
from mmembed.studies.self_mm_data import read_items, read_streams

STREAMS = ("audio", "video", "text")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small text encoder of transformers, of random weights."""
    words = ["a", "person", "who", "sounds", *ragged.CLASSES, *ADJECTIVES.values()]
    return str(write_random_bert(tmp_path_factory.mktemp("bert"), words, spread=0.5))


def number(key: str) -> int:
    return int(key.removeprefix("clip-"))


def rated(split: str) -> list[int]:
    """Clips of a split that have a stream and a sentiment."""
    return [
        n
        for n in range(ragged.CLIPS)
        if ragged.split(n) == split
        and n not in (ragged.BROKEN, ragged.NOTHING)
        and ragged.sentiment(n) is not None
    ]


def groups(clips: list[int]) -> set[object]:
    return {ragged.speaker(n) or ragged.dialogue(n) or n for n in clips}


def after(out: Path, capsys: pytest.CaptureFixture[str], title: str) -> dict[str, Any]:
    """The results, once `compare` and `report` have read them."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    compare([str(out)])
    assert title in capsys.readouterr().out
    report([str(out)])
    assert title in (out / "report.html").read_text()
    found: dict[str, Any] = json.loads((out / "results.json").read_text(), parse_constant=refuse)
    return found


def test_self_mm_joins_streams_by_key(
    ragged_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = ragged_corpus / "embeddings", tmp_path / "out"
    shards = {stream: ShardSet(folder / stream) for stream in STREAMS}
    for split, items in read_streams(folder).items():
        assert sorted(map(number, items.keys)) == rated(split)
        for row, key in enumerate(items.keys):
            assert items.sentiment[row] == pytest.approx(ragged.sentiment(number(key)))
            for stream in STREAMS:
                held = items.streams[stream][row]
                assert (len(held) > 0) == (stream in ragged.streams(number(key)))
                if len(held):
                    record = shards[stream].read(shards[stream].keys.index(key), ["layers.npy"])
                    np.testing.assert_array_equal(held.numpy(), record.members["layers.npy"])
    study = SelfMmStudy(SelfMmRun(embeddings=str(folder), width=4, fusion=8))
    batch = study.batch("self_mm", "train", range(study.size("self_mm", "train")))
    for stream in STREAMS:  # standardised by the clips that have the stream
        real = batch.inputs[stream].lengths > 0
        values = batch.inputs[stream].values[real]
        assert values.mean(0).abs().max() < 1e-2  # of what hardly varies there are few digits
    main(
        ["self_mm", "--embeddings", str(folder), "--out", str(out), "--width", "4", "--fusion",
         "8", "--loop.epochs", "2", "--loop.seeds", "0"]
    )  # fmt: skip
    test = after(out, capsys, "test")["tests"]["test"]
    assert list(test["variants"]) == ["self_mm", "multimodal", "audio", "text", "video"]
    assert test["items"] == len(rated("test")) and test["groups"] == len(groups(rated("test")))
    assert test["grouping"] == "speaker or dialogue or clip"
    scored = TestPredictions.read(out / "predictions" / "test.safetensors")
    truth = np.array([ragged.sentiment(number(key)) for key in scored.items.keys])
    for row, values in scored.variants.items():
        polar = truth != 0
        right = np.mean((truth[polar] > 0) == (values[0][polar] > 0))
        assert test["variants"][row]["acc2_pos"]["mean"] == pytest.approx(right)


def features(folder: Path) -> Path:
    """The ragged corpus as features of others, a vector a stream."""
    records = []
    for n in range(ragged.CLIPS):
        draw = np.random.default_rng(n)
        held = {s: draw.standard_normal((1 + n % 3, 4)).astype(np.float32) for s in STREAMS}
        row = Utterance(
            f"clip-{n}", "f.safetensors#0", speaker=ragged.speaker(n), split=ragged.split(n),
            dialogue=ragged.dialogue(n), labels=ragged.labels(n),
        )  # fmt: skip
        has = {stream: held[stream] for stream in ragged.streams(n)}
        if n != ragged.BROKEN:
            records.append(Record(*to_record(Example(row, features=has))))
    write_shard(shard_path(folder, 0), records, {})
    return folder


def test_self_mm_on_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = features(tmp_path / "shards"), tmp_path / "out"
    items = read_items(folder)["test"]
    assert sorted(map(number, items.keys)) == rated("test")
    for row, key in enumerate(items.keys):
        for stream in STREAMS:
            steps = 1 + number(key) % 3 if stream in ragged.streams(number(key)) else 0
            assert len(items.streams[stream][row]) == steps
    main(
        ["self_mm", "--shards", str(folder), "--out", str(out), "--width", "4", "--fusion", "8",
         "--loop.epochs", "2", "--loop.seeds", "0"]
    )  # fmt: skip
    test = after(out, capsys, "test")["tests"]["test"]
    assert (test["items"], test["groups"]) == (len(items), len(groups(rated("test"))))


def test_labels_on_different_scales_are_refused(tmp_path: Path) -> None:
    split = ("train", "dev", "test")
    labels = {n: {"sentiment": n % 3 - 1} for n in range(9)} | {5: {"category": "positive"}}
    records = [described(n, split=split[n % 3], labels=held) for n, held in labels.items()]
    write_embeddings(tmp_path / "audio", records, ["audio"])
    with pytest.raises(UsageError, match=r"on different scales: .* clip-5 has a category alone"):
        read_streams(tmp_path)


def test_a_stream_that_no_training_clip_has_is_left_out(tmp_path: Path) -> None:
    split = ("train", "dev", "test")
    clips = [described(n, split=split[n % 3], labels={"sentiment": n % 3 - 1}) for n in range(9)]
    write_embeddings(tmp_path / "audio", clips, ["audio"])
    write_embeddings(tmp_path / "video", clips[2::3], ["video"])
    study = SelfMmStudy(SelfMmRun(embeddings=str(tmp_path), width=4, fusion=8))
    assert study.variants == ("self_mm", "multimodal", "audio")


@pytest.mark.parametrize("reads", ["layers", "frames"])
def test_emotion_queries(
    ragged_corpus: Path, bert: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], reads: str
) -> None:
    """Emotions where they are labelled, else the category; nobody is in two splits."""
    folder, out = str(ragged_corpus / "embeddings"), tmp_path / "out"
    settings = EmotionQueriesRun(
        embeddings=(folder,), streams="audio", backbone=bert, leave_out=(), reads=reads
    )  # fmt: skip
    study = EmotionQueriesStudy(settings)
    splits: dict[str, set[object]] = {}
    seen = []
    for split in ("train", "dev", "test"):
        rows = study._splits[split].rows
        splits[split] = groups([number(row.key) for row in rows])
        seen += [number(row.key) for row in rows]
    assert not splits["train"] & splits["test"] and not splits["dev"] & splits["test"]
    assert sorted(seen) == [
        n
        for n in range(ragged.CLIPS)
        if ragged.in_subset(n, "audio") and (ragged.emotions(n) or ragged.category(n))
    ]
    held = study.tests["seen"]
    for row, key in enumerate(held.keys):
        emotions, category = ragged.emotions(number(key)), ragged.category(number(key))
        known = {
            name.split(": ")[1]: x for name, x in zip(held.names, held.truth[row], strict=True)
        }
        told = {name for name, x in known.items() if x == 1}
        if emotions is None:
            assert told == {category}
        else:
            assert len(told) == sum(x is not None and x > 0 for x in emotions)
            assert np.isnan(known["calm"])
    if reads == "layers":
        main(
            ["emotion_queries", "--embeddings", folder, "--streams", "audio", "--backbone", bert,
             "--leave-out", "--loop.epochs", "1", "--loop.seeds", "0", "--method.width", "16",
             "--out", str(out)]
        )  # fmt: skip
        test = after(out, capsys, "seen")["tests"]["seen"]
        assert test["items"] == len(held.keys)
        assert test["groups"] == len(groups([number(key) for key in held.keys]))


def test_layer_anchor_keeps_groups_together(
    ragged_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From made-up clips of known speakers to those ragged ones whose class is known."""
    sha = ShardSet(ragged_corpus / "embeddings" / "audio").manifest["encoder_sha256"]
    layers = ShardSet(ragged_corpus / "embeddings" / "audio").manifest["layers"]
    width = ShardSet(ragged_corpus / "embeddings" / "audio").read(0).members["layers.npy"].shape[1]
    draw = np.random.default_rng(0)
    records = []
    for n in range(24):
        vectors = draw.standard_normal((len(layers), width)).astype(np.float32)
        labels = {"category": ragged.CLASSES[n % 4]}
        json_ = {**embedding(0).members["json"], "speaker": f"s{n // 4}", "labels": labels}
        records.append(Record(f"other-{n}", {"layers.npy": vectors, "json": json_}, {}))
    source = write_embeddings(tmp_path / "source", records, ["audio"])
    manifest = json.loads((source / "manifest.json").read_text())
    manifest |= {"encoder_sha256": sha, "layers": layers}
    (source / "manifest.json").write_text(json.dumps(manifest))
    target = str(ragged_corpus / "embeddings" / "audio")
    settings = LayerAnchorRun(
        source=str(source), target=target, classes=ragged.CLASSES, hidden=4, folds=2, group=2
    )
    study = LayerAnchorStudy(settings)
    expected = [
        n for n in range(ragged.CLIPS) if ragged.in_subset(n, "audio") and ragged.category(n)
    ]
    held = study.tests["target"]
    assert sorted(map(number, held.keys)) == expected
    assert held.grouping == "speaker or dialogue or clip"
    assert len({*held.groups}) == len(groups(expected))
    for fold in study._folds:
        tested = groups([number(key) for key in fold.test.keys])
        learned = [number(k) for k in fold.train.keys if k.startswith("clip")]
        assert not tested & groups(learned)
    out = tmp_path / "out"
    main(
        ["layer_anchor", "--source", str(source), "--target", target, "--classes",
         *ragged.CLASSES, "--hidden", "4", "--folds", "2", "--group", "2", "--loop.epochs", "1",
         "--loop.seeds", "0", "--out", str(out)]
    )  # fmt: skip
    test = after(out, capsys, "target")["tests"]["target"]
    assert (test["items"], test["groups"]) == (len(expected), len(groups(expected)))
    with pytest.raises(UsageError, match="is in the source as well"):
        LayerAnchorStudy(
            LayerAnchorRun(source=target, target=target, classes=ragged.CLASSES, hidden=4, group=2)
        )


def test_verify_and_inspect_know_the_rows(
    ragged_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for subset in ("audio", "audio+video+text"):
        folder = ragged_corpus / "embeddings" / subset
        assert run_program(verify, [str(folder)]) == 0, capsys.readouterr().out
        capsys.readouterr()
        inspect([str(folder)])
        printed = capsys.readouterr().out
        held = [n for n in range(ragged.CLIPS) if ragged.in_subset(n, subset)]
        lines = {line.split()[0]: line for line in printed.splitlines() if line.split()}
        assert f"{len({ragged.dialogue(n) for n in held} - {None})}" in lines["dialogues"]
        assert f"{len({ragged.speaker(n) for n in held} - {None})}" in lines["speakers"]


def turns(folder: Path) -> Path:
    """The ragged corpus as dialogues of six clips, in one of which nobody knows who speaks."""
    records = []
    for n in range(ragged.CLIPS):
        draw = np.random.default_rng(n)
        has = {s: draw.standard_normal((1, 4)).astype(np.float32) for s in ragged.streams(n)}
        part = ("train", "train", "dev", "test")[n // 6 % 4]
        row = Utterance(
            f"clip-{n}", "f.safetensors#0", speaker=f"s{n % 2}" if n // 6 % 3 else None,
            split=part, dialogue=f"talk-{n // 6}" if n != 5 else None, turn=n % 6,
            labels=ragged.labels(n),
        )  # fmt: skip
        if n != ragged.BROKEN:
            records.append(Record(*to_record(Example(row, features=has))))
    write_shard(shard_path(folder, 0), records, {})
    return folder


def test_sdt_scores_labelled_turns_of_dialogues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = turns(tmp_path / "shards"), tmp_path / "out"
    main(
        ["sdt", "--shards", str(folder), "--out", str(out), "--method.width", "8",
         "--method.num-heads", "2", "--loop.epochs", "1", "--loop.seeds", "0"]
    )  # fmt: skip
    test = after(out, capsys, "test")["tests"]["test"]
    expected = [n for n in range(ragged.CLIPS) if n // 6 % 4 == 3 and ragged.category(n)]
    scored = TestPredictions.read(out / "predictions" / "test.safetensors")
    assert sorted(map(number, scored.items.keys)) == expected
    assert scored.items.groups == tuple(f"talk-{number(k) // 6}" for k in scored.items.keys)
    assert (test["items"], test["groups"], test["grouping"]) == (len(expected), 2, "dialogue")
    classes = [ragged.category(number(key)) for key in scored.items.keys]
    assert [scored.items.names[c] for c in scored.items.truth] == classes
    for row, logits in scored.variants.items():
        by_hand = f1_score(scored.items.truth, logits[0].argmax(1), average="weighted")
        assert test["variants"][row]["weighted_f1"]["mean"] == pytest.approx(by_hand)
        assert test["variants"][row]["weighted_f1"].get("low") is None  # of two dialogues


def test_demux_scores_texts_whose_emotions_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the ragged clips their words; of every third nobody said which emotions are present."""
    records, known = [], []
    for n in range(ragged.CLIPS):
        words = {"transcript": f"angry sad {n % 4}"} if "text" in ragged.streams(n) else {}
        present = ("sad",) if n % 2 and ragged.split(n) != "dev" else ("angry",) if n % 5 else ()
        row = Utterance(
            f"clip-{n}", None, split=ragged.split(n), language="en", speaker=ragged.speaker(n),
            dialogue=ragged.dialogue(n), **words,  # type: ignore[arg-type]
            labels=Labels(present=None if n % 3 == 1 else present),
        )  # fmt: skip
        if n != ragged.BROKEN:
            records.append(Record(*to_record(Example(row, text=row.transcript))))
            known += [n] if words and n % 3 != 1 and ragged.split(n) == "test" else []
    write_shard(shard_path(tmp_path / "shards", 0), records, {})
    bert = write_bert(tmp_path / "bert")
    out = tmp_path / "out"
    main(
        ["demux", "--shards", str(tmp_path / "shards"), "--backbone", str(bert), "--out", str(out),
         "--variants", "bce", "--loop.epochs", "1", "--loop.seeds", "0"]
    )  # fmt: skip
    test = after(out, capsys, "test")["tests"]["test"]
    scored = TestPredictions.read(out / "predictions" / "test.safetensors")
    assert sorted(map(number, scored.items.keys)) == known
    assert (test["items"], test["groups"]) == (len(known), len(groups(known)))
    by_hand = f1_score(
        scored.items.truth, scored.variants["bce"][0] > 0.5, average="micro", zero_division=0
    )
    assert test["variants"]["bce"]["micro_f1"]["mean"] == pytest.approx(by_hand)
