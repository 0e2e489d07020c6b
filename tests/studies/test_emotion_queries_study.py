"""Emotion queries on made-up embeddings: what is read, known, held out, left out and asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.clips import RATE, tone
from helpers.support import small_encoder_config
from helpers.tiny_bert import write_random_bert
from mmembed_train.finetune import main

from mmembed.commands.predict import main as predict
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import EMOTIONS, Utterance
from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.embedder import Embedder, save_encoder
from mmembed.encoder import Encoder
from mmembed.errors import CorruptError, UsageError
from mmembed.features.text import Vocabulary
from mmembed.settings.finetune import EmotionQueriesRun
from mmembed.studies.emotion_queries import EmotionQueriesStudy, asking
from mmembed.studies.emotion_queries_data import ADJECTIVES, read_clips
from mmembed.studies.emotion_queries_predictor import QueriesPredictor
from mmembed.studies.finished_runs import mismatch
from mmembed.studies.text_vectors import text_vectors

WIDTH = 8
KNOWN = ("angry", "calm", "disgusted", "fearful", "happy", "sad", "surprised")


def shown(name: str) -> np.ndarray:
    """A direction for each emotion, which layers of clips lean to."""
    draw = np.random.default_rng(KNOWN.index(ADJECTIVES.get(name, name)))
    return draw.normal(0, 1, WIDTH).astype(np.float32)


def record(corpus: str, speaker: str, number: int, labels: dict[str, Any], **more: Any) -> Record:
    draw = np.random.default_rng([number, *map(ord, speaker)])
    names = [labels["category"]] if "category" in labels else []
    names += [n for n, x in zip(EMOTIONS, labels.get("emotions", ()), strict=False) if x]
    centre = sum((shown(name) for name in names), np.zeros(WIDTH, np.float32))
    noisy = centre + draw.normal(0, 0.3, (5, WIDTH))
    members = {
        "layers.npy": noisy.astype(np.float32),
        "json": {"speaker": speaker, "labels": labels},
    }
    meta = {"frames": 5, "split": more.get("split"), "speaker": speaker}
    return Record(f"{corpus}-{speaker}-{number}", {**members, **more.get("members", {})}, meta)


def write(folder: Path, records: list[Record], sha256: str = "0" * 64) -> str:
    write_shard(shard_path(folder, 0), records, {"failed": []})
    finish(folder, encoder_sha256=sha256, streams=["audio"])
    return str(folder)


def acted(folder: Path, speakers: int = 10, sha256: str = "0" * 64) -> str:
    """Each speaker is angry, calm and sad, twice; no splits."""
    return write(
        folder / "acted",
        [
            record("acted", f"a{speaker:02}", number, {"category": category})
            for speaker in range(speakers)
            for number, category in enumerate(("angry", "calm", "sad") * 2)
        ],
        sha256,
    )


def rated(folder: Path) -> str:
    """Intensities of one or two of six emotions; the corpus has its own splits of speakers."""
    records = []
    for place, split in enumerate(("train", "train", "train", "dev", "test")):
        for number in range(12):
            values = [0.0] * 6
            values[number % 6] = 1.5
            values[(number * 5 + 2) % 6] = 0.5
            own = "heldout" if split == "train" and number == 0 else split
            labels = {"emotions": values}
            records.append(record("rated", f"r{place}", number, labels, split=own))
    records.append(record("rated", "r0", 99, {}, split="train"))  # says nothing of emotion
    return write(folder / "rated", records)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small text encoder of transformers, of random weights."""
    words = [*asking("proud").split(), *KNOWN]
    return str(write_random_bert(tmp_path_factory.mktemp("bert"), words, spread=0.5))


def study(folder: Path, bert: str, **settings: Any) -> EmotionQueriesStudy:
    embeddings = (acted(folder), rated(folder))
    settings = {"leave_out": ("angry", "happy"), **settings}
    return EmotionQueriesStudy(
        EmotionQueriesRun(embeddings=embeddings, streams="audio", backbone=bert, **settings)
    )


def test_each_corpus_tells_of_its_own_emotions(tmp_path: Path) -> None:
    splits, names, _ = read_clips([acted(tmp_path), rated(tmp_path)], "audio", "layers")
    assert names == KNOWN
    train = splits["train"]
    told = ~train.emotions.isnan()
    for row, corpus in enumerate(train.corpora):
        here = [name for name, known in zip(names, told[row], strict=True) if known]
        assert here == (
            ["angry", "calm", "sad"] if corpus == "acted" else sorted(set(KNOWN) - {"calm"})
        )
        present = [n for n, x in zip(names, train.emotions[row], strict=True) if x == 1]
        assert len(present) == 1 if corpus == "acted" else present
    place = train.keys.index("rated-r1-0")  # happy 1.5, anger 0.5
    both = [n for n, x in zip(names, train.emotions[place], strict=True) if x == 1]
    assert both == ["angry", "happy"]


def test_speakers_are_of_one_split(tmp_path: Path) -> None:
    """Dealt out where a corpus does not say; its own splits are kept, heldout with its speaker."""
    splits, _, _ = read_clips([acted(tmp_path), rated(tmp_path)], "audio", "layers")
    assert {name: sorted({*clips.groups.names}) for name, clips in splits.items()} == {
        "train": ["a02", "a03", "a04", "a07", "a08", "a09", "r0", "r1", "r2"],
        "dev": ["a01", "a06", "r3"],
        "test": ["a00", "a05", "r4"],
    }
    assert "rated-r0-0" in splits["train"].keys and "rated-r0-99" not in splits["train"].keys


def test_what_is_left_out_is_neither_heard_nor_asked(tmp_path: Path, bert: str) -> None:
    made = study(tmp_path, bert)
    assert made.variants == ("all", "without-angry", "without-happy")
    clips = made.size("all", "train")
    assert clips == 6 * 6 + 3 * 12
    batch = made.batch("without-angry", "train", range(made.size("without-angry", "train")))
    assert len(batch) == clips - 6 * 2 - 3 * 4  # rated: numbers 2, 8 are angry, and 0, 6 a little
    targets, label_mask = batch.targets["emotions"], batch.context["label_mask"]
    assert isinstance(targets, torch.Tensor) and isinstance(label_mask, torch.Tensor)
    assert targets.shape == label_mask.shape == (len(batch), 6) and not targets.isnan().any()
    acts = [row for row, key in enumerate(batch.keys) if key.startswith("acted")]
    assert label_mask[acts].sum(1).tolist() == [2] * len(acts)
    whole = made.batch("all", "dev", [0])
    assert whole.inputs["embedding"].values.shape == (1, 5, WIDTH)
    method = made.method("without-angry")
    torch.testing.assert_close(method.state_dict()["queries"], made.vectors[1:])
    known = batch.inputs["embedding"].pad().values  # of the clips that are not angry
    torch.testing.assert_close(method.state_dict()["standard.embedding.mean"], known.mean(0))


def test_labels_are_scored_within_their_corpus(tmp_path: Path, bert: str) -> None:
    made = study(tmp_path, bert)
    assert set(made.tests) == {"seen", "unseen-angry", "unseen-happy"}
    assert made.tests["seen"].names[:4] == (
        "acted: angry",
        "acted: calm",
        "acted: sad",
        "rated: angry",
    )
    angry, happy = made.tests["unseen-angry"], made.tests["unseen-happy"]
    assert angry.names == ("acted: angry", "rated: angry") and happy.names == ("rated: happy",)
    assert np.isnan(angry.truth).sum(1).tolist() == [1] * len(angry.keys)
    assert all(key.startswith("rated") for key in happy.keys)
    assert made.tests["seen"].constant_scores()["auroc"] == 0.5
    assert mismatch(angry, study(tmp_path / "again", bert).tests["unseen-angry"]) is None


def test_frames_of_any_length_are_read(tmp_path: Path, bert: str) -> None:
    records = [
        record("k", f"s{speaker}", n, {"category": name}, members={"frames.npy": frames})
        for speaker in range(4)
        for n, name in enumerate(("angry", "sad"))
        for frames in [np.full((1 + speaker + n, 3), n, np.float16)]
    ]
    run = EmotionQueriesRun(
        embeddings=(write(tmp_path / "k", records),), streams="audio", reads="frames",
        backbone=bert, leave_out=(),
    )  # fmt: skip
    made = EmotionQueriesStudy(run)
    assert made.lengths("all") == [3, 4, 4, 5]  # of s2 and s3
    assert made.batch("all", "train", [0, 3]).inputs["embedding"].lengths.tolist() == [3, 5]
    assert made.baselines("seen")["ridge regression"].shape == (2, 2)
    answers = made.predict("all", "seen", made.method("all").eval())
    assert answers is not None and np.isfinite(answers).all()


def test_a_variant_answers_for_what_it_lacks(tmp_path: Path, bert: str) -> None:
    made = study(tmp_path, bert)
    method = made.method("without-angry").eval()
    assert made.predict("without-angry", "seen", method) is None
    assert made.rows("without-angry", "unseen-happy", method) == {}
    rows = made.rows("without-angry", "unseen-angry", method)
    assert set(rows) == {"without-angry", "nearest-seen"}
    assert rows["nearest-seen"].shape == made.tests["unseen-angry"].truth.shape
    nearest = 1 + int((made.vectors[1:] @ made.vectors[0]).argmax())
    clips = [key for key in made.tests["seen"].keys if key in made.tests["unseen-angry"].keys]
    assert list(made.tests["unseen-angry"].keys) == clips
    by_hand = made.rows("all", "seen", method)["all"]
    column = made.tests["seen"].names.index(f"rated: {made.emotions[nearest]}")
    np.testing.assert_allclose(rows["nearest-seen"][:, 1], by_hand[:, column], atol=1e-5)


def test_descriptions_ask_instead_of_words(tmp_path: Path, bert: str) -> None:
    said = {name: f"a person = {name} calm" for name in KNOWN}
    made = study(tmp_path, bert, descriptions=tuple(f"{name}={said[name]}" for name in said))
    torch.testing.assert_close(made.vectors, text_vectors(bert, [*said.values()]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"backbone": ""}, "give --backbone"),
        ({"embeddings": ()}, "give --embeddings"),
        ({"streams": "video"}, "holds no embeddings of video, but of audio"),
        ({"reads": "frames"}, "holds no frames; extract it with --granularity frame"),
        ({"leave_out": ("jealous",)}, "--leave-out jealous: no training clip shows it"),
        ({"descriptions": ("angry=a", "calm=a", "sad=")}, "for each emotion .*: angry, calm, sad"),
        ({"descriptions": ("angry=a", "calm=a", "sad=a", "shy=a")}, "for each emotion"),
    ],
)
def test_bad_settings_are_told(
    tmp_path: Path, bert: str, change: dict[str, Any], told: str
) -> None:
    settings: dict[str, Any] = {
        "embeddings": (acted(tmp_path),), "streams": "audio", "backbone": bert, "leave_out": (),
    }  # fmt: skip
    with pytest.raises(UsageError, match=told):
        EmotionQueriesStudy(EmotionQueriesRun(**{**settings, **change}))


def test_folders_that_do_not_serve_are_told(tmp_path: Path) -> None:
    other = acted(tmp_path / "other", sha256="1" * 64)
    with pytest.raises(UsageError, match="embeddings of different encoders"):
        read_clips([acted(tmp_path), other], "audio", "layers")
    with pytest.raises(UsageError, match="2 speakers; train, dev and test need one each"):
        read_clips([acted(tmp_path / "few", speakers=2)], "audio", "layers")
    mute = write(tmp_path / "mute", [record("mute", "m", 0, {})])
    with pytest.raises(UsageError, match="no clip has a label"):
        read_clips([mute], "audio", "layers")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "encoder"
    vocabulary = Vocabulary.train(["red on blue", "lay white at nine"], 20, "char")
    torch.manual_seed(0)
    config = small_encoder_config()
    config = type(config)(**{**vars(config), "vocabulary_size": len(vocabulary)})
    save_encoder(folder, Encoder(config), vocabulary, {})
    return folder


def test_from_folders_to_any_word_of_a_clip(
    tmp_path: Path, bert: str, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program learns what the made-up layers show; its folder then answers for a clip."""
    out = tmp_path / "out"
    embeddings = [acted(tmp_path), rated(tmp_path)]
    main([
        "emotion_queries", "--embeddings", *embeddings, "--streams", "audio", "--backbone", bert,
        "--leave-out", "angry", "--loop.epochs", "20", "--loop.seeds", "0", "1",
        "--loop.batch-size", "8", "--method.width", "32", "--method.dropout", "0.0",
        "--optim.lr", "3e-3", "--out", str(out),
    ])  # fmt: skip
    assert "nearest-seen" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    seen, unseen = results["tests"]["seen"], results["tests"]["unseen-angry"]
    assert seen["metric"] == "auroc" and set(seen["variants"]) == {"all"}
    assert seen["variants"]["all"]["auroc"]["mean"] > 0.85
    assert seen["baselines"]["ridge regression"]["auroc"]["mean"] > 0.9
    assert set(unseen["variants"]) == {"all", "without-angry", "nearest-seen"}
    assert unseen["variants"]["all"]["auroc"]["mean"] > 0.9 and unseen["constant"]["auroc"] == 0.5
    each = results["label_auroc"]["unseen-angry"]["all"]
    assert np.mean(list(each.values())) == pytest.approx(unseen["variants"]["all"]["auroc"]["mean"])
    assert set(results["nearest"]) == {"angry"} and "a00" in results["speakers"]["test"]
    with pytest.raises(UsageError, match="not the encoder of"):
        QueriesPredictor.from_run(out, encoder)


def test_clips_are_asked_as_the_study_asks(
    tmp_path: Path, bert: str, encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder = Embedder.from_pretrained(encoder)
    clips = []
    for number in range(12):
        draw = np.random.default_rng(number)
        audio = (3_000 * draw.standard_normal(9_600)).astype(np.int16)
        clips.append(
            Example(Utterance(f"k-s{number // 2}-{number}", None), audio=audio, text="red at nine")
        )
    layers = embedder.encode([clip.only(("audio",)) for clip in clips]).layers.numpy()
    records = []
    for number, one in enumerate(layers):
        labels = {"category": ("angry", "sad")[number % 2]}
        found = record("k", f"s{number // 2}", number, labels, members={"layers.npy": one})
        records.append(found)
    folder, out = write(tmp_path / "k", records, embedder.sha256), tmp_path / "out"
    described = ("sad=a person calm", "angry=a calm")
    main([
        "emotion_queries", "--embeddings", folder, "--streams", "audio", "--backbone", bert,
        "--leave-out", "--loop.epochs", "1", "--loop.seeds", "3", "4", "--method.width", "16",
        "--descriptions", *described, "--out", str(out),
    ])  # fmt: skip
    capsys.readouterr()
    queries = QueriesPredictor.from_run(out, encoder)
    run = EmotionQueriesRun(
        embeddings=(folder,), streams="audio", backbone=bert, leave_out=(), descriptions=described
    )
    again = EmotionQueriesStudy(run)
    told = np.mean([again.predict("all", "seen", one) for one in queries.queries], 0)
    for row, key in enumerate(again.tests["seen"].keys):
        clip = next(clip for clip in clips if clip.key == key)
        found = queries(clip, ["sad", "happy", "angry"])
        assert list(found) == ["sad", "happy", "angry"]
        assert [found["angry"], found["sad"]] == pytest.approx(told[row].tolist(), abs=1e-5)
        assert queries(clip, ["happy"])["happy"] == pytest.approx(found["happy"], abs=1e-5)
        by_description = queries(clip, ["a person calm"])["a person calm"]
        assert by_description == pytest.approx(found["sad"], abs=1e-5)
    soundfile.write(tmp_path / "clip.wav", tone(1.5), RATE)
    asked = ["--emotions", "sad, quietly proud", "--run", str(out), "--encoder", str(encoder)]
    predict([str(tmp_path / "clip.wav"), *asked, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["streams"] == "audio" and list(printed)[2:4] == ["sad", "quietly proud"]
    assert re.fullmatch(r".*, \d+ clips, \d+ speakers", printed["trained_on"])
    assert printed["encoder_trained_on"] == "not recorded" and printed["outside"] is None
    assert all(0 < printed[word] < 1 for word in ("sad", "quietly proud"))
    with pytest.raises(UsageError, match="give its encoder, --encoder DIR"):
        predict(["clip.wav", *asked[:4]])
    with pytest.raises(UsageError, match="k-s0-0: has none of audio"):
        queries(clips[0].only(("text",)), ["sad"])
    with pytest.raises(UsageError, match="no emotion to ask for"):
        queries(clips[0], [])
    with pytest.raises(CorruptError, match="holds no run of emotion_queries"):
        QueriesPredictor.from_run(tmp_path, encoder)
    (out / "all" / "seed-4.safetensors").write_bytes(b"no")
    with pytest.raises(CorruptError, match=r"seed-4\.safetensors: not usable"):
        QueriesPredictor.from_run(out, encoder)
