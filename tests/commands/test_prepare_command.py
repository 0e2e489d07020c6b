import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from mmembed.commands.prepare import main
from mmembed.data.manifest.jsonl import read_manifest, write_manifest
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import BudgetError, DataError, UsageError


@pytest.fixture
def digits(tmp_path) -> Path:
    """Half a second each of four "recordings" by two speakers, in the layout of FSDD."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    for name in ("1_ann_0", "2_ann_9", "1_bob_0", "3_bob_8"):
        soundfile.write(folder / f"{name}.wav", noise, 8000)
    return folder.parent


def test_a_corpus_becomes_a_manifest_and_shards(digits, tmp_path, capsys):
    out = tmp_path / "out"
    main(["fsdd", str(digits), "--out", str(out), "--workers", "1"])
    printed = capsys.readouterr().out
    shards = ShardSet(out / "shards")
    assert len(shards) == 4
    assert set(shards.read(0).members) == {"json", "audio.flac"}
    rows = read_manifest(out / "manifest.jsonl")
    assert [row.key for row in rows] == list(shards.keys)
    assert all((out / row.media).is_file() for row in rows)
    assert printed.startswith("4 utterances (")
    assert "2 heldout" in printed
    assert f"2 train), 0.00 h, 2 speakers, 0 failed: {out / 'shards'}" in printed


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.parquet"])
def test_its_manifest_prepares_the_same_features(digits, tmp_path, name):
    one, two = tmp_path / "one", tmp_path / "two"
    main(["fsdd", str(digits), "--out", str(one), "--workers", "1"])
    write_manifest(one / name, read_manifest(one / "manifest.jsonl"))
    main(["manifest", str(one / name), "--out", str(two), "--workers", "1"])
    tar = "shards/shard-000000.tar"
    assert (one / tar).read_bytes() == (two / tar).read_bytes()


def test_the_streams_asked_for_are_kept(digits, tmp_path):
    main(["fsdd", str(digits), "--out", str(tmp_path), "--workers", "1", "--streams", "text"])
    shards = ShardSet(tmp_path / "shards")
    assert set(shards.read(0).members) == {"json"}
    assert shards.meta(0)["lengths"] == {"audio": 0, "video": 0, "text": len("one")}


def test_what_fails_is_named_and_the_rest_prepared(digits, tmp_path, capsys):
    (digits / "recordings" / "2_ann_9.wav").write_text("not sound")
    arguments = ["fsdd", str(digits), "--out", str(tmp_path / "out"), "--workers", "1"]
    with pytest.raises(BudgetError, match="1 of 4 utterances"):
        main(arguments)
    main([*arguments, "--error-budget", "0.25"])
    captured = capsys.readouterr()
    assert captured.out.startswith("3 utterances (")
    assert "1 failed" in captured.out
    assert "failed (not_media)" in captured.err
    assert "2_ann_9.wav" in captured.err


def test_other_streams_in_the_same_folder_are_refused(digits, tmp_path):
    arguments = ["fsdd", str(digits), "--out", str(tmp_path / "out"), "--workers", "1"]
    main(arguments)
    with pytest.raises(UsageError, match="choose another folder"):
        main([*arguments, "--streams", "text"])


def test_a_folder_without_the_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match="FSDD"):
        main(["fsdd", str(tmp_path), "--out", str(tmp_path / "out")])


def test_help_names_every_corpus(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    listed = capsys.readouterr().out
    for name in ("talkers", "manifest", "cmu_arctic", "emodb", "emovo", "fsdd", "grid", "ravdess"):
        assert name in listed


@pytest.mark.slow
def test_torchrun_shares_the_work(digits, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    how = ["--records-per-shard", "1", "--workers", "1"]
    main(["fsdd", str(digits), "--out", str(one), *how])
    program = ["-m", "mmembed.commands.cli", "prepare", "fsdd", str(digits), "--out", str(two)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2"]
    run = subprocess.run([*torchrun, *program, *how], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "4 utterances (" in run.stdout  # said once, by whoever was last
    for path in one.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()


def test_a_rank_alone_says_that_others_are_missing(digits, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["fsdd", str(digits), "--out", str(out), "--records-per-shard", "1"]
    main([*arguments, "--rank", "1", "--world", "2"])
    assert "rank 1 of 2 has made its shards; other ranks are at work" in capsys.readouterr().out
    assert not (out / "shards" / "manifest.json").exists()
    with pytest.raises(UsageError, match="ranks are 0 to"):
        main([*arguments, "--rank", "2", "--world", "2"])


def test_a_table_names_its_media_from_its_own_folder(digits, tmp_path):
    table = digits / "mine.tsv"
    table.write_text("key\tmedia\tspeaker\tend\nann-1\trecordings/1_ann_0.wav\tann\t0.25\n")
    out = tmp_path / "elsewhere" / "out"
    main(["table", str(table), "--out", str(out), "--workers", "1"])
    shards = ShardSet(out / "shards")
    assert shards.keys == ("ann-1",)
    assert shards.meta(0)["lengths"]["audio"] == 4_000  # 0.25 s


def test_what_converts_writes_beside_its_manifest(digits, tmp_path):
    source, out = tmp_path / "words", tmp_path / "out"
    source.mkdir()
    sound = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("text", pa.string()), ("audio", sound)])
    wav = (digits / "recordings" / "1_ann_0.wav").read_bytes()
    rows = [
        {"text": "Hello.", "audio": None},
        {"text": "One.", "audio": {"bytes": wav, "path": "1.wav"}},
    ]
    with pa.ipc.new_stream(str(source / "data.arrow"), schema) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(rows, schema))
    (source / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    features = {"text": {"_type": "Value"}, "audio": {"_type": "Audio"}}
    (source / "dataset_info.json").write_text(json.dumps({"features": features}))
    main(["hf_dataset", str(source), "--out", str(out), "--workers", "1"])
    assert [r.transcript for r in read_manifest(out / "manifest.jsonl")] == ["Hello.", "One."]
    shards = ShardSet(out / "shards")
    assert set(shards.read(0).members) == {"json"}
    assert shards.read(1).members["audio.flac"].shape == (8_000,)  # half a second, out of a tar
