"""extract.py in real processes: inputs, what is stored, formats, parts, looking first."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import webdataset
from helpers.clips import tone
from helpers.encoders import write_encoder
from helpers.extracting import ALL, WORDS, Extract, contents, keys
from helpers.forker import Forker
from safetensors import safe_open

import mmembed
from mmembed.commands.cli import run_program
from mmembed.commands.verify import main as verify
from mmembed.data.shards.layout import ShardSet
from mmembed.embedder import Embedder

# Inputs.


def test_wildcards_lists_and_odd_names_are_inputs(extract: Extract, here: Path) -> None:
    names = ["clips%2Fa%2Emp4", "clips%2Fc%5B1%5D%2Ewav", "clips%2Fdeep%2Fb%2Emp4"]
    code, said = extract("clips/**/*.*", "--out", "wild")
    assert code == 0, said
    assert keys(here / "wild") == names
    code, said = extract("-", "--out", "listed", stdin="clips/deep/b.mp4\n\nclips/c[1].wav\n")
    assert code == 0, said
    assert keys(here / "listed") == [names[2], names[1]]
    assert json.loads((here / "listed" / "manifest.json").read_text())["inputs"] == ["-"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["clips/*.mkv"], "clips/*.mkv: matches nothing"),
        (["-"], "-: the list of inputs is empty"),
        (["s3://bucket/*.mp4"], "wildcards in URLs are not expanded"),
        (["https://u:secret@host/rows.jsonl"], "https://host/rows.jsonl: a manifest must lie here"),
        (["clips/a.mp4", "clips/a.mp4"], "another clip has its key"),
        (["clips", "--layers", "fused", "audio 9"], "--layers 'audio 9': there are audio 0, "),
        (["clips", "--streams", "smell"], "--streams: "),
        (["clips", "--rank", "2", "--world", "2"], "rank 2 of 2"),
        (["clips", "--records-per-shard", "0"], "--records-per-shard: at least 1"),
        ([], "nothing to extract"),
    ],
)
def test_what_cannot_be_meant_is_one_line(extract: Extract, words: list[str], line: str) -> None:
    code, said = extract(*words, "--out", "never")
    assert code == 2 and line in said and "secret" not in said
    assert said.startswith("error: ") and said.count("\n") == 1


def test_clips_behind_a_url(
    extract: Extract, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(here))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        env = {"MMEMBED_CACHE": str(tmp_path)}
        words = [f"{url}/clips/a.mp4?token=secret", f"{url}/lost.wav", "--out", "remote"]
        code, said = extract(*words, "--dry-run", env=env)
        assert code == 3 and f"would fail (missing): {url}/lost.wav: " in said, said
        assert "1 not opened" in said and not list(tmp_path.iterdir())  # nothing was fetched
        code, said = extract(*words, "--error-budget", "0.5", env=env)
        assert code == 0, said
    finally:
        server.shutdown()
    alone = mmembed.load_embeddings(here / "remote")
    assert [key.endswith("clips%2Fa%2Emp4") for key in alone.keys] == [True]
    assert all(b"secret" not in data for data in contents(here / "remote").values())
    expected = Embedder.from_pretrained(here / "encoder")(str(here / "clips" / "a.mp4"))
    np.testing.assert_allclose(alone.vectors[0], expected.pooled, atol=1e-5)
    (failed,) = (here / "remote" / "failed.jsonl").read_text().splitlines()
    assert json.loads(failed)["reason"] == "missing"


# What is stored.


@pytest.fixture(scope="module")
def everything(extract: Extract, here: Path) -> Path:
    formats = ["--format", "npy", "safetensors", "parquet"]
    words = ["--out", "all", "--records-per-shard", 3, *ALL, *formats]
    code, said = extract("rows.jsonl", *words)
    assert code == 0, said
    return here / "all"


def test_each_granularity_is_what_the_embedder_says(everything: Path, here: Path) -> None:
    embedder = Embedder.from_pretrained(here / "encoder")
    file = here / "clips" / "a.mp4"
    expected = embedder(file, text=WORDS[0])
    shards = ShardSet(everything)
    said, unknown, written, long = (shards.read(n).members for n in range(4))
    for name in ("pooled", "layers", "frames"):
        np.testing.assert_allclose(said[f"{name}.npy"], getattr(expected, name), atol=1e-5)
        assert said[f"{name}.npy"].dtype == np.float32
    np.testing.assert_allclose(said["words.npy"], [w.vector for w in expected.words], atol=1e-5)
    assert [tuple(word.values()) for word in said["json"]["words"]] == [
        (word.end, word.start, word.text) for word in expected.words
    ]
    assert "no_words" not in said["json"]
    for clip, why in {
        "its words are not known": unknown,
        "no times of words: there are neither sound nor pictures": written,
        "no times of words: ": long,
    }.items():
        assert why["json"]["words"] == [] and why["words.npy"].shape == (0, 64)
        assert why["json"]["no_words"].startswith(clip)
    assert run_program(verify, [str(everything)]) == 0


def test_other_formats_hold_the_same(everything: Path) -> None:
    """The snippets of docs/embedding.md."""
    shards = ShardSet(everything)
    records = [shards.read(n) for n in range(len(shards))]
    clips = [json.loads(line) for line in (everything / "embeddings.jsonl").open()]
    assert [clip["key"] for clip in clips] == list(shards.keys)
    assert [clip["words"] for clip in clips] == [r.members["json"]["words"] for r in records]
    table = pq.read_table(everything / "embeddings.parquet").to_pylist()
    assert [row["key"] for row in table] == list(shards.keys)
    assert [row["split"] for row in table] == ["test", "test", "train", None]
    layers = shards.manifest["layers"]
    with safe_open(everything / "embeddings.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["mmembed"]) == shards.manifest
        for name in ("pooled", "layers", "frames", "words", "frames.offsets", "words.offsets"):
            array = np.load(everything / f"embeddings.{name}.npy")
            np.testing.assert_array_equal(array, file.get_tensor(name))
            assert array.dtype == file.get_tensor(name).dtype
    arrays = {
        name: np.load(everything / f"embeddings.{name}.npy", mmap_mode="r")
        for name in ("pooled", "layers", "frames", "frames.offsets", "words", "words.offsets")
    }
    for n, record in enumerate(records):
        members, row = record.members, table[n]
        for name in ("pooled", "layers"):
            np.testing.assert_array_equal(arrays[name][n], members[f"{name}.npy"])
        for name in ("frames", "words"):
            first, last = arrays[f"{name}.offsets"][n : n + 2]
            np.testing.assert_array_equal(arrays[name][first:last], members[f"{name}.npy"])
        np.testing.assert_array_equal(row["pooled"], members["pooled.npy"])
        for place, layer in enumerate(layers):
            np.testing.assert_array_equal(row[f"layers.{layer}"], members["layers.npy"][place])
        np.testing.assert_array_equal(np.stack(row["frame_vectors"]), members["frames.npy"])
        assert row["frames"] == len(members["frames.npy"])
        told = [{"text": w["text"], "start": w["start"], "end": w["end"]} for w in row["words"]]
        assert told == members["json"]["words"]
        for word, vector in zip(row["words"], members["words.npy"], strict=True):
            np.testing.assert_array_equal(word["vector"], vector)


def test_formats_are_made_once_and_damage_is_seen(
    extract: Extract, everything: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["rows.jsonl", "--out", "all", "--records-per-shard", 3, *ALL, "--format", "parquet"]
    before = {path: path.stat().st_mtime_ns for path in everything.glob("embeddings.*")}
    assert extract(*again)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in everything.glob("embeddings.*")} == before
    table = everything / "embeddings.parquet"
    good = table.read_bytes()
    table.write_bytes(good[:99] + bytes([good[99] ^ 1]) + good[100:])
    assert run_program(verify, [str(everything)]) == 5
    assert f"copy: {table}: not as written" in capsys.readouterr().out
    (everything / "embeddings.json").unlink()
    assert extract(*again)[0] == 0
    assert table.read_bytes() == good and run_program(verify, [str(everything)]) == 0


def test_some_layers_in_half_the_bytes(extract: Extract, here: Path, everything: Path) -> None:
    chosen = ["fused", "audio 0"]
    words = ["--layers", *chosen, "--dtype", "float16", "--format", "parquet", "safetensors"]
    words += ["--records-per-shard", "3"]  # the same batches: others round otherwise
    code, said = extract("rows.jsonl", "--out", "half", *ALL, *words)
    assert code == 0, said
    half, full = mmembed.load_embeddings(here / "half", "layers"), ShardSet(everything)
    assert half.metadata["layers"] == ["audio 0", "fused"] and half.metadata["dtype"] == "float16"
    names = full.manifest["layers"]
    for row in range(len(half)):
        layers = full.read(row).members["layers.npy"]
        picked = layers[[names.index("audio 0"), names.index("fused")]]
        np.testing.assert_array_equal(half.vectors[row], picked.astype(np.float16))
    stored = ShardSet(here / "half").read(0).members
    assert {array.dtype.name for name, array in stored.items() if name != "json"} == {"float16"}
    column = pq.read_table(here / "half" / "embeddings.parquet")["pooled"]
    assert str(column.type) == "fixed_size_list<element: halffloat>[64]"
    assert run_program(verify, [str(here / "half")]) == 0


def test_bfloat16_is_close_and_told(extract: Extract, here: Path, everything: Path) -> None:
    code, said = extract("rows.jsonl", "--out", "bf16", "--precision", "bf16", *ALL)
    assert code == 0, said
    fast, exact = mmembed.load_embeddings(here / "bf16"), mmembed.load_embeddings(everything)
    assert (fast.metadata["computed_in"], exact.metadata["computed_in"]) == ("bfloat16", "float32")
    assert not np.array_equal(fast.vectors, exact.vectors)
    products = (fast.vectors * exact.vectors).sum(1)
    cosines = (
        products / np.linalg.norm(fast.vectors, axis=1) / np.linalg.norm(exact.vectors, axis=1)
    )
    assert cosines.min() > 0.9999


def test_frames_alone_have_no_pooled_vectors(extract: Extract, here: Path) -> None:
    code, said = extract("rows.jsonl", "--out", "frames", "--granularity", "frame")
    assert code == 0, said
    assert set(ShardSet(here / "frames").read(0).members) == {"frames.npy", "json"}
    assert run_program(verify, [str(here / "frames")]) == 0
    with pytest.raises(mmembed.errors.UsageError, match="extract it with --granularity utterance"):
        mmembed.load_embeddings(here / "frames")


def test_words_need_a_recogniser(forker: Forker, here: Path) -> None:
    write_encoder(here / "silent", recogniser=False)
    argv = ["rows.jsonl", "--encoder", "silent", "--out", "x", "--granularity", "word"]
    ((code, said),) = forker(argv, cwd=str(here))
    assert code == 2 and "the encoder has no recogniser and no clip has words" in said
    assert not (here / "x").exists()


def test_every_shard_says_how_it_was_made(extract: Extract, here: Path, everything: Path) -> None:
    for sidecar in sorted(everything.glob("shard-*.json")):
        told = json.loads(sidecar.read_bytes())["provenance"]
        assert {name: type(value).__name__ for name, value in told.items()} == {
            "encoder_sha256": "str", "version": "str", "made_with": "dict", "width": "int",
            "frame_rate": "int", "layers": "list", "granularity": "list", "dtype": "str",
            "computed_in": "str", "streams": "list", "clips": "int", "inputs": "list",
            "inputs_sha256": "str", "records_per_shard": "int", "batch_frames": "int",
            "timeout": "float", "face_model_sha256": "NoneType", "encoder": "str",
            "command": "str", "failed": "list", "fingerprints": "dict", "max_seconds": "float",
        }  # fmt: skip
        assert told["version"] == mmembed.__version__ == told["made_with"]["mmembed"]
        assert {"numpy", "torch", "av"} < set(told["made_with"])
    (words := told["command"].split())
    assert words[:3] == ["mmembed", "extract", "rows.jsonl"]
    code, said = extract(*words[2:], "--out", "replayed")  # the command makes the same bytes again
    assert code == 0, said
    copies = {name: x for name, x in contents(everything).items() if "embeddings." not in name}
    assert contents(here / "replayed") == copies


def test_other_inputs_settings_or_layouts_are_refused(extract: Extract, here: Path) -> None:
    shutil.copytree(here / "clips", here / "mine")
    assert extract("mine", "--out", "claimed")[0] == 0
    (here / "mine" / "a.mp4").rename(here / "mine" / "z.mp4")
    for words, what in {
        ("mine",): "inputs_sha256",
        ("clips", "--granularity", "frame"): "granularity",
        ("clips", "--dtype", "float16"): "dtype",
    }.items():
        code, said = extract(*words, "--out", "claimed")
        assert code == 2 and "holds a run with other settings" in said and what in said
        assert words == ("mine",) or extract(*words, "--out", "claimed", "--dry-run")[1] == said
    (here / "mine" / "z.mp4").rename(here / "mine" / "a.mp4")
    assert extract(here / "mine" / ".." / "mine", "--out", "claimed")[0] == 2  # other keys
    assert extract("mine", "--out", "claimed")[0] == 0


def test_a_folder_of_a_version_that_counted_clips_is_refused(extract: Extract, here: Path) -> None:
    assert extract("clips/a.mp4", "--out", "older")[0] == 0
    path = here / "older" / "run.json"
    run = json.loads(path.read_bytes())
    del run["batch_frames"]
    path.write_text(json.dumps({**run, "batch_size": 8}))
    for also in ([], ["--dry-run"]):
        code, said = extract("clips/a.mp4", "--out", "older", *also)
        assert code == 2 and said.startswith(
            "error: older: begun with --batch-size 8, by a version"
        )
        assert said.count("\n") == 1


# Several subsets, several processes.


def test_a_lost_subset_is_made_again_alone(extract: Extract, here: Path) -> None:
    words = ["clips/a.mp4", "--out", "apart", "--streams", "audio", "video", "audio+video"]
    assert extract(*words)[0] == 0
    whole = contents(here / "apart")
    others = here / "apart" / "audio" / "shard-000000.tar"
    written = others.stat().st_mtime_ns
    (here / "apart" / "video" / "shard-000000.json").unlink()
    code, said = extract(*words)
    assert code == 0 and contents(here / "apart") == whole, said
    assert others.stat().st_mtime_ns == written


def test_the_shard_of_a_replaced_clip_is_made_again(extract: Extract, here: Path) -> None:
    folder = here / "replaced"
    folder.mkdir()
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", tone(0.5, hertz=200 + 100 * number), 16_000)
    (folder / "notes.txt").touch()
    words = ["replaced", "--out", "again", "--records-per-shard", "2"]
    assert extract(*words)[0] == 0
    first = contents(here / "again")
    made = json.loads(first["manifest.json"])
    assert [check["items"] for check in made["remarks"]] == [["notes.txt"]]
    (folder / "2.wav").touch()
    assert extract(*words)[0] == 0 and contents(here / "again") == first
    soundfile.write(folder / "2.wav", tone(0.5, hertz=900), 16_000)
    code, said = extract(*words, "--dry-run")
    assert code == 0 and "inputs changed: 1 of the shards done are made again" in said
    assert contents(here / "again") == first
    code, said = extract(*words)
    assert code == 0 and "shard-000001.tar is made again: 1 of its inputs changed" in said, said
    second = contents(here / "again")
    assert second["shard-000000.tar"] == first["shard-000000.tar"]
    assert second["shard-000001.tar"] != first["shard-000001.tar"]
    assert extract("replaced", "--out", "fresh", "--records-per-shard", "2")[0] == 0
    assert (here / "fresh" / "shard-000001.tar").read_bytes() == second["shard-000001.tar"]


def test_parts_meet_in_any_order(forker: Forker, here: Path) -> None:
    argv = ["corpus/shards", "--encoder", "encoder", "--records-per-shard", "7"]
    ((code, said),) = forker([*argv, "--out", "whole"], cwd=str(here))
    assert code == 0, said
    parts = [[*argv, "--out", "parts", "--rank", str(rank), "--world", "3"] for rank in range(3)]
    ((code, said),) = forker(parts[2], cwd=str(here))
    assert code == 0 and "rank 2 of 3 has made its shards; other ranks are at work" in said
    assert not (here / "parts" / "manifest.json").exists()
    answers = forker(parts[0], parts[1], cwd=str(here))
    assert [code for code, _ in answers] == [0, 0]
    assert sum("30 embeddings in parts, 0 failed" in said for _, said in answers) >= 1
    assert contents(here / "parts") == contents(here / "whole")


# Looking first.


def test_a_dry_run_tells_all_and_writes_nothing(extract: Extract, here: Path) -> None:
    (here / "odd").mkdir()
    (here / "odd" / "text.mp4").write_text("Good evening, this is no film. " * 9)
    (here / "odd" / "empty.wav").touch()
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    words = ["clips", "odd", "rows.jsonl", "--streams", "audio", "text", "--out", "dry"]
    code, said = extract(*words, "--dry-run")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
    lines = [line for line in said.splitlines() if not line.startswith("look ")]
    assert "would fail (empty): odd/empty.wav: the file is empty" in lines
    assert "clips: 9, 0.00 hours" in lines
    assert "streams: 3 audio, 2 audio+text, 1 text" in lines
    assert "shards: 0 done, 2 to make, in 2 folders" in lines
    assert any(line.startswith("would fail: 6 no_streams") for line in lines), lines
    assert lines[-1].startswith("error: ") and code == 3
    assert extract(*words)[0] == code  # as the real run
    code, said = extract(*words, "--dry-run", "--error-budget", "0.9")
    assert code == 0 and "shards: 2 done, 0 to make" in said and "disk: about 0.0 MB" in said


def test_the_estimate_is_near(extract: Extract, here: Path) -> None:
    words = ["corpus/shards", "--out", "size", *ALL, "--format", "npy"]
    code, said = extract(*words, "--dry-run")
    assert code == 0, said
    (line,) = [line for line in said.splitlines() if line.startswith("disk: about ")]
    assert extract(*words)[0] == 0
    size = sum(map(len, contents(here / "size").values())) / 1e6
    assert 0.8 * size < float(line.split()[2]) < 1.8 * size, (line, size)


def test_any_webdataset_reads_frames_and_words(everything: Path) -> None:
    """The snippet of docs/embedding.md."""
    tars = [str(path) for path in sorted(everything.glob("*.tar"))]
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        described = json.loads(sample["json"])
        words = np.load(io.BytesIO(sample["words.npy"]))
        assert len(described["words"]) == len(words)
