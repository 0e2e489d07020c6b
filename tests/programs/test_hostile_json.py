"""Whatever stands in the JSON files of a folder of embeddings: one line and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.encoders import write_encoder
from helpers.prepared import example, write_prepared
from mmembed_export.extract import main as extract

from mmembed.commands.cli import run_program
from mmembed.commands.inspect import main as inspect
from mmembed.commands.search import main as search
from mmembed.commands.verify import main as verify

Commands = dict[str, Callable[[], int]]

RAW = [
    b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b"[1]", b"9" * 5000, b"\xff\xfe",
    b'{"layers": NaN}',
]  # fmt: skip
FIELDS: dict[str, list[tuple[str, Any]]] = {
    "manifest.json": [
        ("layers", 3), ("layers", [1]), ("streams", "audio"), ("streams", [{}]), ("streams", None),
        ("frame_rate", -1), ("frame_rate", "25"), ("clips", 10**30), ("clips", 2.5),
        ("clips", 2**62),
        ("inputs", [1]), ("inputs", ["pipe:ls", "\0"]), ("encoder_sha256", []),
        ("granularity", {}), ("records_per_shard", -1),
    ],
    "embeddings.json": [
        ("files", []), ("files", {"/dev/zero": {"bytes": 0, "sha256": ""}}), ("formats", [[]]),
        ("files", {"../a": {"bytes": 0, "sha256": ""}}), ("files", {"embeddings.npy": []}),
        ("formats", 3), ("shards", []),
    ],
    "vectors.json": [("bytes", 2**70), ("crc32", None), ("shards", [])],
    "run.json": [("layers", [[]]), ("clips", None), ("records_per_shard", "many")],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    write_encoder(made / "encoder")
    write_prepared(made / "corpus", [example(n) for n in range(2)])
    return made


@pytest.fixture(scope="module")
def commands(folder: Path) -> Commands:
    out = str(folder / "out")
    words = [str(folder / "corpus" / "shards"), "--encoder", str(folder / "encoder"), "--out", out]
    made: Commands = {
        "extract": lambda: run_program(extract, [*words, "--format", "npy"]),
        "search": lambda: run_program(search, [out, "clip-1"]),
        "verify": lambda: run_program(verify, [out]),
        "inspect": lambda: run_program(inspect, [out]),
    }
    assert [run() for run in made.values()] == [0, 0, 0, 0]
    return made


@pytest.mark.parametrize("name", [*FIELDS, "failed.jsonl"])
def test_any_content_is_one_line(
    folder: Path, commands: Commands, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "out" / name
    good = path.read_bytes()
    contents = [*RAW, good[: len(good) // 2]]
    for field, value in FIELDS.get(name, ()):
        contents.append(json.dumps({**json.loads(good), field: value}).encode())
    try:
        for content in contents:
            for command in ("search", "verify", "inspect"):
                path.write_bytes(content)
                capsys.readouterr()
                code = commands[command]()
                said = capsys.readouterr().err.splitlines()
                assert code in (0, 2, 4, 5), (command, content[:80])
                assert not code or said[-1].startswith("error: "), (command, content[:80])
            if name in ("run.json", "embeddings.json"):
                path.write_bytes(content)
                assert commands["extract"]() in (0, 2, 5), content[:80]
    finally:
        path.write_bytes(good)
    assert commands["extract"]() == 0
