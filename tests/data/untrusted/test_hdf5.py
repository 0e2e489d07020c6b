"""HDF5 files: `.csd` sequences come back as written; whatever points elsewhere is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmembed.data.untrusted.hdf5 import _read, read_csd, read_csd_words
from mmembed.data.untrusted.sandbox import UnsafeFileError, run_sandboxed
from mmembed.errors import DataError

SECRET = b"these bytes belong to another file; nobody may read them here.."  # 64 with a newline


def csd(path: Path, data: dict[str, tuple[object, object]], **metadata: object) -> Path:
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in data.items():
            group = file.create_group(f"COVAREP/data/{video}")
            group["features"], group["intervals"] = features, intervals
        for key, value in metadata.items():
            file[f"COVAREP/metadata/{key}"] = np.array([value], object)
    return path


def test_sequences_come_back(tmp_path: Path) -> None:
    first = np.array([[1.5, -np.inf], [np.nan, 0.1]])
    path = csd(
        tmp_path / "a.csd",
        {
            "-3g5yACwYnA": (first, [[0.1, 0.2], [0.25, 1 / 3]]),
            "255224": (np.ones((1, 2), np.float16), [[0, 1]]),
            "25522": (np.zeros((0, 2)), np.zeros((0, 2))),
        },
        md=json.dumps({"uuid": "x", "dimension names": ["a", "b"]}),
    )
    name, found = read_csd(path)
    assert name == "COVAREP" and set(found) == {"-3g5yACwYnA", "25522", "255224"}
    features, intervals = found["-3g5yACwYnA"]
    assert features.dtype == np.float32 and intervals.dtype == np.float64
    np.testing.assert_array_equal(features, first.astype(np.float32))
    np.testing.assert_array_equal(intervals, [[0.1, 0.2], [0.25, 1 / 3]])
    assert found["255224"][1].dtype == np.float64
    assert found["25522"][0].shape == (0, 2)


def test_compressed_and_chunked_data(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for filters in ({"compression": "gzip"}, {"compression": "lzf"}, {"fletcher32": True}):
            name = "-".join(map(str, filters.values()))
            file.create_dataset(name, data=values, chunks=(32, 3), shuffle=True, **filters)
    for found in run_sandboxed(_read, tmp_path / "a.h5").values():
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("kind", ["S32", "vlen"])
def test_words(tmp_path: Path, kind: str) -> None:
    words = np.array(
        [["sp"], ["caf\u00e9".encode()]], "S32" if kind == "S32" else h5py.string_dtype()
    )
    path = csd(tmp_path / "a.csd", {"v": (words, [[0, 1], [1, 2]])})
    found, intervals = read_csd_words(path)["v"]
    assert found == ("sp", "caf\u00e9") and intervals.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(DataError, match="'v' holds words"):
        read_csd(path)


def test_other_layouts_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'v' has features \(3, 2\) and intervals \(2, 2\)"):
        read_csd(csd(tmp_path / "a.csd", {"v": (np.zeros((3, 2)), np.zeros((2, 2)))}))
    with h5py.File(tmp_path / "b.csd", "w") as file:
        file["v/features"] = [1]
    with pytest.raises(DataError, match="not a computational sequence"):
        read_csd(tmp_path / "b.csd")
    with h5py.File(tmp_path / "c.csd", "w") as file:
        file["x/data/v/features"] = [[1]]
    with pytest.raises(DataError, match="'v' lacks features or intervals"):
        read_csd(tmp_path / "c.csd")
    with pytest.raises(DataError, match="no such file"):
        read_csd(tmp_path / "d.csd")


def soft(group: h5py.Group, other: Path) -> None:
    group["features"] = h5py.SoftLink("/x/data/v/intervals")


def external(group: h5py.Group, other: Path) -> None:
    group["features"] = h5py.ExternalLink(str(other), "/secret")


def external_group(group: h5py.Group, other: Path) -> None:
    group["more"] = h5py.ExternalLink(str(other), "/")


def raw(group: h5py.Group, other: Path) -> None:
    where = [(str(other), 0, h5py.h5f.UNLIMITED)]
    group.create_dataset("features", (8, 8), np.uint8, external=where)


def virtual(group: h5py.Group, other: Path) -> None:
    layout = h5py.VirtualLayout((8, 8), np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "secret", (8, 8))
    group.create_virtual_dataset("features", layout)


def virtual_unlimited(group: h5py.Group, other: Path) -> None:
    layout = h5py.VirtualLayout((8, 8), np.uint8, maxshape=(None, 8))
    source = h5py.VirtualSource(str(other), "secret", (8, 8), maxshape=(None, 8))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    group.create_virtual_dataset("features", layout)


def cycle(group: h5py.Group, other: Path) -> None:
    group["again"] = group.parent


def twice(group: h5py.Group, other: Path) -> None:
    group["features"] = group["intervals"]


def record(group: h5py.Group, other: Path) -> None:
    group["features"] = np.zeros(2, [("a", "f4")])


def reference(group: h5py.Group, other: Path) -> None:
    group.create_dataset("features", data=[group.ref], dtype=h5py.ref_dtype)


def vlen(group: h5py.Group, other: Path) -> None:
    group.create_dataset("features", (1,), h5py.vlen_dtype(np.float32))


def named_type(group: h5py.Group, other: Path) -> None:
    group["features"] = np.dtype("f4")


def foreign_filter(group: h5py.Group, other: Path) -> None:
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((8, 8))
    made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstd, a plugin
    space = h5py.h5s.create_simple((8, 8))
    h5py.h5d.create(group.id, b"features", h5py.h5t.NATIVE_UINT8, space, made)


TRICKS = (
    soft, external, external_group, raw, virtual, virtual_unlimited, cycle, twice, record,
    reference, vlen, named_type, foreign_filter,
)  # fmt: skip


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.frombuffer(SECRET.ljust(64), np.uint8).reshape(8, 8)
    return tmp_path / "other.h5"


def craft(path: Path, trick: Callable[[h5py.Group, Path], None], other: Path) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("x/data/v")
        group["intervals"] = np.zeros((8, 2))
        trick(group, other)
    return path


@pytest.mark.parametrize("trick", TRICKS)
def test_what_points_elsewhere_is_refused(
    tmp_path: Path, secret: Path, trick: Callable[[h5py.Group, Path], None]
) -> None:
    path = craft(tmp_path / "evil.csd", trick, secret)
    with pytest.raises(UnsafeFileError) as refused:
        _read(str(path))
    assert refused.value.reason == "unsafe" and "/x/data/v" in str(refused.value)


@pytest.mark.parametrize("trick", [external, raw, virtual])
def test_the_tricks_work_on_others(
    tmp_path: Path, secret: Path, trick: Callable[[h5py.Group, Path], None]
) -> None:
    other = secret
    if trick is raw:
        other = tmp_path / "secret.txt"
        other.write_bytes(SECRET.ljust(64))
    with h5py.File(craft(tmp_path / "evil.csd", trick, other)) as file:
        assert file["x/data/v/features"][()].tobytes() == SECRET.ljust(64)


@pytest.mark.parametrize("trick", [external, external_group, raw, virtual, virtual_unlimited])
def test_the_other_file_is_not_even_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trick: Callable[[h5py.Group, Path], None]
) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "20")
    other = tmp_path / "pipe"
    path = craft(tmp_path / "evil.csd", trick, other)
    os.mkfifo(other)
    with pytest.raises(DataError, match="/x/data/v") as refused:
        read_csd(path)
    assert refused.value.reason == "unsafe"


def test_sizes_are_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:  # declared, never written
        file.create_dataset("a", (10**9, 300), np.float64, chunks=(1000, 300))
    with pytest.raises(DataError, match=r"declares 2.4e\+12 bytes") as refused:
        run_sandboxed(_read, tmp_path / "a.h5")
    assert refused.value.reason == "too_large"
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for number in range(200):
            file.create_dataset(f"{number}", (2**10, 2**8), np.uint8, chunks=(2**10, 2**8))
    with pytest.raises(DataError, match="declares"):
        run_sandboxed(_read, tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["a"] = np.zeros((2**25,), np.float64)
    monkeypatch.setenv("MMEMBED_READER_GIB", "0.25")
    with pytest.raises(DataError, match="MMEMBED_READER_GIB"):
        run_sandboxed(_read, tmp_path / "c.h5")


@pytest.mark.parametrize("trials", [5, pytest.param(200, marks=pytest.mark.long)])
def test_changed_bytes_and_cuts_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: int
) -> None:
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "20")
    whole = csd(tmp_path / "a.csd", {f"v{n}": (np.ones((3, 2)), np.ones((3, 2))) for n in range(9)})
    data, rng = whole.read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for trial in range(trials):
        changed = bytearray(data)
        for place in rng.integers(len(data), size=4 ** (trial % 5)):
            changed[place] = rng.integers(256)
        path = tmp_path / "b.csd"
        path.write_bytes(changed[: rng.integers(len(data)) if trial % 3 == 0 else None])
        try:
            read_csd(path)
            outcomes.add("ok")
        except DataError as error:
            assert "\n" not in str(error)
            outcomes.add(error.reason)
    assert "damaged" in outcomes
    assert outcomes <= {"ok", "damaged", "unsafe", "too_large", "crashed", "too_slow", "csd"}
