"""Sandboxed functions: what they return comes back, and what they do stays with them."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmembed.data.untrusted.sandbox import UnsafeFileError, limits_of, run_sandboxed
from mmembed.data.untrusted.serialize import dump, load
from mmembed.errors import DataError, UsageError


def echo(path: str) -> Any:
    return [Path(path).read_text(), os.getpid(), np.arange(3)]


def refuse(path: str) -> None:
    raise UnsafeFileError("line\n\tbreaks\x1b[2J", "odd")


def fail(path: str) -> None:
    raise KeyError("why")


def crash(path: str) -> None:
    ctypes.string_at(0)


def leave(path: str) -> None:
    os._exit(0)


def sleep(path: str) -> None:
    time.sleep(60)


def spin(path: str) -> None:
    while True:
        pass


def allocate(path: str) -> int:
    return len(bytearray(int(Path(path).read_text())))


def write(path: str) -> bytes:
    with open(path, "wb") as file:
        for _ in range(2**9):
            file.write(bytes(2**20))
    return b""


def lie(path: str) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            os.write(descriptor, b'{"$array": ["|O8", [1], 0]}' + (27).to_bytes(8, "little"))
            os._exit(0)
        except OSError:
            pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("content")
    return tmp_path / "file"


def test_values_come_back_from_another_process(path: Path) -> None:
    content, process, array = run_sandboxed(echo, path)
    assert content == "content" and process != os.getpid()
    assert array.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "reason", "message"),
    [
        (refuse, "odd", r"line breaks\?\[2J"),
        (fail, "damaged", "KeyError: 'why'"),
        (crash, "crashed", "SIGSEGV"),
        (leave, "crashed", "nonsense"),
        (lie, "crashed", "nonsense"),
        (spin, "too_slow", "allow more"),
    ],
)
def test_failures_have_reasons(
    path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, reason: str, message: str
) -> None:
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "1")
    with pytest.raises(DataError, match=message) as error:
        run_sandboxed(function, path)
    assert error.value.reason == reason and str(error.value).startswith(f"{path}: ")


def test_memory_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEMBED_READER_GIB", "0.5")
    path.write_text(str(2**27))
    assert run_sandboxed(allocate, path) == 2**27
    path.write_text(str(2**29))
    with pytest.raises(DataError, match=r"more than 0.50 GiB") as error:
        run_sandboxed(allocate, path)
    assert error.value.reason == "too_large"


def test_limits_grow_with_the_file_or_are_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("ab") as file:
        file.truncate(10**9)
    assert limits_of(path) == (2**30 + 4 * 10**9, 260)
    monkeypatch.setenv("MMEMBED_READER_GIB", "0.5")
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "7")
    assert limits_of(path) == (2**29, 7)
    monkeypatch.setenv("MMEMBED_READER_GIB", "much")
    with pytest.raises(UsageError, match="'much'; a number is allowed"):
        run_sandboxed(echo, path)


def test_files_are_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEMBED_READER_GIB", "0.25")
    with pytest.raises(DataError, match="allow more by MMEMBED_READER_GIB"):
        run_sandboxed(write, path)
    assert path.stat().st_size <= 2**28


@pytest.mark.long
def test_time_by_the_clock_is_limited(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "1")
    with pytest.raises(DataError, match="allow more"):
        run_sandboxed(sleep, path)


@pytest.mark.parametrize(
    "packed",
    [
        b"", b"1", b"{", b'{"$array": ["<f8", [99], 0]}', b'{"$array": ["<f8", [-1], 0]}',
        b'{"$array": ["|O8", [1], 0]}', b'{"$array": ["<f8", [4611686018427387904, 4], 0]}',
        b'{"$array": ["<f8", [1], -8]}', b'{"$array": ["<f8", [0.5], 0]}', b'{"$array": []}',
        b'{"$bytes": ["|u1", [99999], 0]}', b'{"$bytes": ["|u1", [-1], 9]}', b'{"$array": 1}',
        b'{"$os.system": "true"}', b'{"$os.system": ["|u1", [1], 0]}', b'{"$dict": 1}',
        b'{"$dict": [[1]]}', b'{"$dict": [[{}, 1]]}', b'{"$dict": [], "$array": []}',
        b'{"$complex": ["1", "2"]}', b'{"$complex": [1, 2, 3]}', b"[" * 100_000,
        b'{"$array": ["f8,f8", [1], 0]}', b'{"$floats": ["<f8", [99], 0]}',
        b'{"$floats": ["<f8", [-1], 0]}', b"[" + b'{"$floats": ["<f8", [8], 0]}, ' * 90 + b"1]",
    ],
)  # fmt: skip
def test_files_that_lie_are_refused(tmp_path: Path, packed: bytes) -> None:
    length = len(packed) if packed != b"1" else 999
    (tmp_path / "a").write_bytes(bytes(64) + packed + length.to_bytes(8, "little"))
    with (
        (tmp_path / "a").open("rb") as file,
        pytest.raises(ValueError, match="not a file of plain"),
    ):
        load(file)


@pytest.mark.parametrize("value", [object(), np.array(["2020"], "M8[Y]"), {1: len}, np.dtype("f4")])
def test_other_values_are_not_written(tmp_path: Path, value: object) -> None:
    with (tmp_path / "a").open("wb") as file, pytest.raises(ValueError, match="holds a"):
        dump(value, file)


def test_an_array_that_occurs_often_is_written_once(tmp_path: Path) -> None:
    array = np.zeros(1000)
    with (tmp_path / "a").open("wb") as file:
        dump([array] * 100, file)
    assert (tmp_path / "a").stat().st_size < 20_000
    with (tmp_path / "a").open("rb") as file:
        assert sum(len(part) for part in load(file)) == 100_000
