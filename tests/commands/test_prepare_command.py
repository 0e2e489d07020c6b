from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmembed.commands.prepare import main
from mmembed.data.manifest import read_manifest, write_manifest
from mmembed.data.shards import ShardSet
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
    main(["fsdd", str(digits), "--out", str(out), "--workers", "0"])
    printed = capsys.readouterr().out
    shards = ShardSet(out / "shards")
    assert len(shards) == 4
    assert set(shards.read(0).members) == {"json", "audio.npy"}
    rows = read_manifest(out / "manifest.jsonl")
    assert [row.key for row in rows] == list(shards.keys)
    assert all((out / row.media).is_file() for row in rows)
    assert printed.startswith("4 utterances (")
    assert "2 heldout" in printed
    assert f"2 train), 0.00 h, 2 speakers, 0 failed: {out / 'shards'}" in printed


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.parquet"])
def test_its_manifest_prepares_the_same_features(digits, tmp_path, name):
    one, two = tmp_path / "one", tmp_path / "two"
    main(["fsdd", str(digits), "--out", str(one), "--workers", "0"])
    write_manifest(one / name, read_manifest(one / "manifest.jsonl"))
    main(["manifest", str(one / name), "--out", str(two), "--workers", "0"])
    tar = "shards/shard-000000.tar"
    assert (one / tar).read_bytes() == (two / tar).read_bytes()


def test_the_streams_asked_for_are_kept(digits, tmp_path):
    main(["fsdd", str(digits), "--out", str(tmp_path), "--workers", "0", "--streams", "text"])
    shards = ShardSet(tmp_path / "shards")
    assert set(shards.read(0).members) == {"json"}
    assert shards.meta(0)["lengths"] == {"audio": 0, "video": 0, "text": len("one")}


def test_what_fails_is_named_and_the_rest_prepared(digits, tmp_path, capsys):
    (digits / "recordings" / "2_ann_9.wav").write_text("not sound")
    arguments = ["fsdd", str(digits), "--out", str(tmp_path / "out"), "--workers", "0"]
    with pytest.raises(BudgetError, match="1 of 4 utterances"):
        main(arguments)
    main([*arguments, "--error-budget", "0.25"])
    captured = capsys.readouterr()
    assert captured.out.startswith("3 utterances (")
    assert "1 failed" in captured.out
    assert "failed (not_media)" in captured.err
    assert "2_ann_9.wav" in captured.err


def test_other_streams_in_the_same_folder_are_refused(digits, tmp_path):
    arguments = ["fsdd", str(digits), "--out", str(tmp_path / "out"), "--workers", "0"]
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
