"""Pickles: plain values come back whole, hostile ones are refused and run nothing."""

from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmembed.data.untrusted.pickles import _read, _scan, _Unpickler, read_pickle
from mmembed.data.untrusted.sandbox import UnsafeFileError, respond, run_sandboxed
from mmembed.data.untrusted.serialize import dump, load
from mmembed.errors import DataError


def objects(*items: Any) -> Any:
    array = np.empty(len(items), object)
    for place, item in enumerate(items):
        array[place] = item
    return array


PLAIN: dict[Any, Any] = {
    "float64": np.arange(6.0).reshape(2, 3),
    "float16": np.ones((2, 1, 2), np.float16),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(0, 2, 1),
    "strided": np.arange(10)[::3],
    "big-endian": np.arange(3, dtype=">f4"),
    "none of them": np.zeros((0, 4)),
    "one": np.array(3.0),
    "bool": np.array([True, False]),
    "text": np.array([["ab", "\u00e9\u20ac"]]),
    "big-endian text": np.array(["ab"], ">U2"),
    "no text": np.array([], str),
    "byte text": np.array([b"ab", b"c"]),
    "objects": np.array(["a", None, [1, 2], np.arange(2)], object),
    "lists": objects([1, 2], [3, 4]),
    "table": np.array([["a", 1], ["b", 2.5]], object),
    "scalar": np.float32(2.5),
    "scalar text": np.str_("h\u00e9"),
    "scalar bool": np.bool_(True),
    "bytes": b"\x80abc",
    "no bytes": b"",
    "set": {1, "x"},
    "frozenset": frozenset([(1, 2)]),
    "tuple": (1, (2, [None, True, False])),
    "complex": 1 + 2j,
    "large": -(2**200),
    "floats": [0.1, float("inf"), -0.0],
    "long floats": [0.1, float("-inf"), -0.0, 1e300, 5e-324, 1.0, 2.0, 3.0, 4.0, 5.0],
    "mixed": [0.5] * 10 + [1],
    "many": list(range(1000)),
    "surrogate": "\ud800",
    (1, "key"): {2.5: {None: b"k"}},
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def same(left: Any, right: Any) -> bool:
    """Whether `right` is `left` as `serialize` gives it back."""
    if isinstance(left, np.generic) or (isinstance(left, np.ndarray) and left.dtype == object):
        left = left.tolist()
    if isinstance(left, np.ndarray):
        return (
            type(right) is np.ndarray
            and left.shape == right.shape
            and left.dtype == right.dtype.newbyteorder(left.dtype.byteorder)
            and all(map(same, left.ravel().tolist(), right.ravel().tolist()))
        )
    if isinstance(left, list | tuple):
        return type(right) is list and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, set | frozenset):  # no set is built of what a stranger chose
        return type(right) is list and same(sorted(left, key=repr), right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def read_here(path: Path) -> Any:
    """As `read_pickle`, but without the process and its limits, which take time."""
    with tempfile.TemporaryFile() as file:
        respond(lambda: _read(str(path)), file, 0)
        reason, value = load(file)
    if reason:
        raise DataError(str(path), reason, value)
    return value


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(tmp_path: Path, protocol: int) -> None:
    read = read_pickle if protocol in (2, 5) else read_here
    found = read(write(tmp_path / "a.pkl", pickle.dumps(PLAIN, protocol)))
    assert list(found) == list(PLAIN)
    assert [name for name in PLAIN if not same(PLAIN[name], found[name])] == []


def test_arrays_may_be_changed_and_outlive_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pkl", pickle.dumps(np.arange(1000.0)))
    first, second = read_pickle(path), read_pickle(path)
    path.unlink()
    first += 1
    assert first.sum() == 500_500 and second.sum() == 499_500


def test_other_containers_come_as_plain_ones(tmp_path: Path) -> None:
    values = (
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, {"x": [1]}),
        collections.defaultdict(None, {"y": 1}),
        bytearray(b"xyz"),
    )
    for protocol in range(6):
        found = read_here(write(tmp_path / "a.pkl", pickle.dumps(values, protocol)))
        assert found == [{"b": 1, "a": 2}, {"x": [1]}, {"y": 1}, b"xyz"]
        assert list(map(type, found)) == [dict, dict, dict, bytes]


def test_names_of_either_numpy(tmp_path: Path) -> None:
    data = pickle.dumps([np.arange(3.0), np.float32(1)], 2)
    assert b"numpy._core." in data
    old = read_here(write(tmp_path / "a.pkl", data.replace(b"numpy._core.", b"numpy.core.")))
    assert old[0].tolist() == [0, 1, 2] and old[1] == 1


# As Python 2.7 with numpy 1.16 writes them; the text protocol is that of cPickle.dump's default.
PYTHON_2_TEXT = (
    b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntS'b'\ntRp3\n"
    b"(I1\n(I2\ntcnumpy\ndtype\np4\n(S'f8'\nI0\nI1\ntRp5\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    b"I00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xc0'\ntb."
)
PYTHON_2_BINARY = (
    b"\x80\x02}q\x01(U\x05Ses01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03"
    b"K\x00\x85U\x01b\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00 \xc0"
    b"tbU\x02idU\x03caf\xe9U\x01sc__builtin__\nset\nq\x07]q\x08K\x01a\x85Ru."
).replace(b"U\x03caf\xe9", b"U\x04caf\xe9")


def test_files_of_python_2(tmp_path: Path) -> None:
    assert read_here(write(tmp_path / "a.pkl", PYTHON_2_TEXT)).tolist() == [1.0, -2.0]
    found = read_pickle(write(tmp_path / "b.pkl", PYTHON_2_BINARY))
    assert found["Ses01"].tolist() == [1.0, -2.5] and found["Ses01"].dtype == np.float32
    assert found["id"] == "caf\u00e9" and found["s"] == [1]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any] | str, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


def sentinel(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "system": lambda path: Call(os.system, f"touch {path}"),
    "eval": lambda path: Call(eval, sentinel(path)),
    "exec": lambda path: Call(exec, sentinel(path)),
    "open": lambda path: Call(open, str(path), "w"),
    "popen": lambda path: Call(subprocess.Popen, ["touch", str(path)]),
    "getattr": lambda path: Call(getattr, {}, "update"),
    "nested": lambda path: {"a": [np.arange(3), (1, Call(Call, Call(eval, sentinel(path))))]},
    "object array": lambda path: np.array([1, Call(eval, sentinel(path))], object),
    "dict key": lambda path: {Call(eval, sentinel(path)): 1},
    "numpy.load": lambda path: Call(np.load, str(path), None, True),
    "numpy.save": lambda path: Call(np.save, str(path), np.arange(3)),
    "numpy.tofile": lambda path: Call(np.ndarray.tofile, np.arange(3), str(path)),
    "numpy.memmap": lambda path: Call(np.memmap, str(path), np.uint8, "w+", 0, (8,)),
    "numpy.fromfile": lambda path: Call(np.fromfile, "/etc/hostname", np.uint8),
    "numpy.frompyfunc": lambda path: Call(np.frompyfunc, os.system, 1, 1),
    "defaultdict": lambda path: collections.defaultdict(os.getcwd),
    "path": lambda path: path,
    "record": lambda path: np.zeros(2, [("a", "f4")]),
    "date": lambda path: np.array(["2020-01-01"], "M8[D]"),
    "matrix": lambda path: np.array([[1]]).view(np.matrix),
    "class": lambda path: np.float32,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_calls_are_refused(tmp_path: Path, name: str) -> None:
    for protocol in (0, 2, 5):
        data = pickle.dumps(HOSTILE[name](tmp_path / "sentinel"), protocol)
        refused(read_here, tmp_path, data, "unsafe")
    if name in ("system", "nested"):
        refused(read_pickle, tmp_path, data, "unsafe")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_the_scan_overlooked_would_still_not_run(tmp_path: Path, name: str) -> None:
    for protocol in (0, 2, 5):
        data = pickle.dumps(HOSTILE[name](tmp_path / "sentinel"), protocol)
        with pytest.raises((UnsafeFileError, pickle.UnpicklingError)):
            _Unpickler(io.BytesIO(data), encoding="latin1").load()
        assert list(tmp_path.iterdir()) == []


def test_the_sentinel_would_be_seen(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(HOSTILE["object array"](tmp_path / "sentinel")))
    assert (tmp_path / "sentinel").exists()


def refused(read: Callable[[Path], Any], folder: Path, data: bytes, *reasons: str) -> str:
    path = write(folder / "evil.pkl", data)
    with pytest.raises(DataError) as error:
        read(path)
    assert sorted(folder.iterdir()) == [path], "something was run"
    assert error.value.reason in reasons, str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


ENCODE = b"c_codecs\nencode\n"
NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
FLOAT = b"cnumpy\ndtype\n(U\x02f8I0\nI1\ntR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
OBJECT = FLOAT.replace(b"f8", b"O8").replace(b"<", b"|")


def array(shape: bytes, kind: bytes, data: bytes, fortran: bytes = b"\x89") -> bytes:
    """An array with the state given, in protocol 2 and Python 2's way."""
    return b"\x80\x02" + NDARRAY + b"(K\x01(" + shape + b"t" + kind + fortran + data + b"tb."


CRAFTED: dict[str, tuple[bytes, str]] = {
    # The names on the stack are put together, taken from the memo, or no constants.
    "stack global": (b"\x80\x04" + text("os") + text("system") + b"\x93.", "unsafe"),
    "by memo": (
        b"\x80\x04" + text("system") + b"\x94" + text("os") + b"\x94h\x01h\x00\x93.", "unsafe",
    ),
    "by digits": (
        b"\x80\x04" + text("os") + b"r5\x00\x00\x00h5" + text("system") + b"\x93.", "unsafe",
    ),
    "old text": (b"\x80\x04Vos\nVsystem\n\x93.", "unsafe"),
    "computed": (
        b"\x80\x04" + ENCODE + text("os") + text("latin1") + b"\x86R" + text("system") + b"\x93.",
        "unsafe",
    ),
    "dotted": (b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93.", "unsafe"),
    "renamed": (b"\x80\x04" + text("numpy") + text("dtype ") + b"\x93.", "unsafe"),
    "inst": (b"(S'true'\nios\nsystem\n.", "unsafe"),
    "obj": (b"(cnumpy\nndarray\no.", "unsafe"),
    "newobj": (b"\x80\x02cnumpy\nndarray\n(K\x01t\x81.", "unsafe"),
    "newobj_ex": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "unsafe"),
    "persid": (b"Pid\n.", "unsafe"),
    "binpersid": (b"K\x01Q.", "unsafe"),
    "extension": (b"\x80\x02\x82\x01.", "unsafe"),
    "outer buffer": (b"\x80\x05\x97.", "unsafe"),
    # Of what is allowed, more than it is allowed for.
    "codec": (ENCODE + b"(Vx\nVzip\ntR.", "unsafe"),
    "rot13": (ENCODE + b"(Vbf\nVrot13\ntR.", "unsafe"),
    "range": (b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR.", "unsafe"),
    "build function": (b"cnumpy\ndtype\n}S'__class__'\nK\x01sb.", "unsafe"),
    "build function slots": (b"c_codecs\nencode\n(N}S'_function'\nK\x01stb.", "unsafe"),
    "build dict": (b"}}S'__class__'\nK\x01sb.", "damaged"),
    "build list": (b"](N}S'append'\nK\x01stb.", "damaged"),
    "other array": (NDARRAY.replace(b"cnumpy\nndarray", b"c__builtin__\nset") + b".", "unsafe"),
    # Arrays whose parts do not fit.
    "too few": (array(b"J\xff\xff\xff\x7f", FLOAT, b"U\x08aaaaaaaa"), "damaged"),
    "too many": (array(b"K\x01", FLOAT, b"U\x10aaaaaaaaaaaaaaaa"), "damaged"),
    "negative": (array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff", FLOAT, b"U\x08aaaaaaaa"), "damaged"),
    "overflow": (array(b"\x8a\x09" + bytes(8) + b"\x01K\x00", FLOAT, b"U\x00"), "damaged"),
    "wraps": (array(b"\x8a\x09" + bytes(8) + b"\x01", FLOAT, b"U\x00"), "damaged"),
    "no size": (array(b"J\xff\xff\xff\x7f", FLOAT.replace(b"f8", b"S0"), b"U\x00"), "damaged"),
    "pointers": (array(b"K\x01", OBJECT, b"U\x08aaaaaaaa"), "damaged"),
    "list of floats": (array(b"K\x01", FLOAT, b"]K\x01a"), "damaged"),
    "shape of text": (array(b"U\x01a", FLOAT, b"U\x08aaaaaaaa"), "damaged"),
    "no type": (array(b"K\x01", b"K\x01", b"U\x08aaaaaaaa"), "damaged"),
    "letters": (array(b"K\x01", FLOAT.replace(b"f8", b"U1"), b"U\x04\xff\xff\xff\xff"), "damaged"),
    "type of records": (FLOAT.replace(b"<NNN", b"<N(tN") + b".", "unsafe"),
    "view": (array(b"K\x01", FLOAT.replace(b"f8", b"V8"), b"U\x08aaaaaaaa"), "unsafe"),
    # Nothing that ends well.
    "empty": (b"", "damaged"),
    "text": (b"key,label\n", "damaged"),
    "cut": (pickle.dumps(PLAIN)[:-20], "damaged"),
    "two": (pickle.dumps(1) + pickle.dumps(2), "damaged"),
    "empty stack": (b".", "damaged"),
    "no memo": (b"h\x07.", "damaged"),
    "negative length": (b"T\xff\xff\xff\xff.", "damaged"),
    "long length": (b"\x8e" + b"\xff" * 8 + b".", "damaged"),
    "protocol": (b"\x80\x99N.", "damaged"),
    "itself": (b"]q\x00h\x00a.", "damaged"),
    "deep": (b"]" * 200 + b"a" * 199 + b".", "damaged"),
    "hash of itself": (b"](]q\x00h\x00ah\x00Nu.", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused(tmp_path: Path, name: str) -> None:
    data, reason = CRAFTED[name]
    refused(read_here, tmp_path, data, reason)


def test_every_cut_is_refused() -> None:
    for protocol in (0, 2, 5):
        data = pickle.dumps({"a": np.arange(3.0), "b": ["text", (1, 2.5)]}, protocol)
        for end in range(len(data)):
            with pytest.raises(UnsafeFileError, match="cut short"):
                _scan(io.BytesIO(data[:end]), end)


def laughs(depth: int) -> bytes:
    """Ten times the list before, again and again, by the memo."""
    lists = (b"](" + b"h" + bytes([n]) + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
             for n in range(depth))  # fmt: skip
    return b"]q\x00" + b"".join(lists) + b"."


BOMBS = {
    "laughs": laughs(12),
    "memo": b"Nr\xff\xff\xff\x7f.",
    "the same text": b"U\xf0" + b"a" * 240 + b"q\x00" + b"](" + b"h\x00" * 500_000 + b"e.",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_memory_go_off_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("MMEMBED_READER_GIB", "0.25")
    message = refused(read_pickle, tmp_path, BOMBS[name], "too_large")
    assert "MMEMBED_READER_GIB" in message


def test_time_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "1")
    path = write(tmp_path / "a.pkl", b"](" + b"K\x01" * 5_000_000 + b"e.")
    started = time.monotonic()
    with pytest.raises(DataError, match="allow more") as error:
        read_pickle(path)
    assert error.value.reason == "too_slow" and time.monotonic() - started < 10


MODULUS = 2**61 - 1  # of the hashes of numbers


def alike(count: int) -> list[Any]:
    """Numbers of one hash: each of them in a set or dict is compared with all before it."""
    return [1 + n * MODULUS for n in range(count)]


@pytest.mark.parametrize(
    "value",
    [set(alike(300)), [frozenset(alike(300))] * 3, {n: 0 for n in alike(300)},
     {(n, "a"): 0 for n in alike(300)}, {float(n): 0 for n in range(300)}],
    ids=["set", "frozensets", "dict", "dict of tuples", "dict of floats"],
)  # fmt: skip
def test_few_numbers_of_one_hash_are_read(tmp_path: Path, value: Any) -> None:
    assert same(value, read_here(write(tmp_path / "a.pkl", pickle.dumps(value))))


def test_many_numbers_of_one_hash_take_no_time_here(tmp_path: Path) -> None:
    """What the child builds once may be there many times, and would take minutes each."""
    sets = [set(alike(1000))] * 200
    path = write(tmp_path / "a.pkl", pickle.dumps(sets, 4))
    started = time.process_time()
    read = read_pickle(path)
    assert len(read) == 200 and read[0] == sorted(sets[0], key=repr)
    assert time.process_time() - started < 5  # of this process alone
    with tempfile.TemporaryFile() as file:
        dump([dict.fromkeys(alike(1000))] * 200, file)
        with pytest.raises(TimeoutError):
            load(file, time.monotonic() + 0.5)


def test_reading_has_one_limit_of_time(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:
        dump({"a": [[n] for n in range(9)]}, file)
        assert load(file, time.monotonic() + 60) == {"a": [[n] for n in range(9)]}
        with pytest.raises(TimeoutError):
            load(file, time.monotonic() - 1)


def test_a_set_is_no_key(tmp_path: Path) -> None:
    for key in (frozenset([1]), (1, frozenset([2]))):
        path = write(tmp_path / "a.pkl", pickle.dumps({key: 1}))
        with pytest.raises(DataError, match="a dict with a set as a key"):
            read_here(path)


def test_deep_nesting_cannot_crash_this_process(tmp_path: Path) -> None:
    deep = b"K\x01" + b"\x85" * 500_000 + b"q\x00}h\x00Ns."  # a key: its hash recurses
    refused(read_pickle, tmp_path, deep, "crashed", "damaged", "too_large")


def fuzz(path: str) -> dict[str, int]:
    """Outcomes of files with changed bytes, read one after another; runs in the sandbox.

    At first the file says how many.
    """
    count = int(Path(path).read_text())
    rng, outcomes = np.random.default_rng(count), collections.Counter[str]()
    for trial in range(count):
        data = bytearray(pickle.dumps(PLAIN, trial % 6))
        for place in rng.integers(len(data), size=1 + trial % 4):
            data[place] = rng.integers(256)
        write(Path(path), bytes(data))
        try:
            read_here(Path(path))
            outcomes["ok"] += 1
        except DataError as error:
            outcomes[error.reason] += 1
    return dict(outcomes)


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_changed_bytes_crash_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("MMEMBED_READER_GIB", "1")
    monkeypatch.setenv("MMEMBED_READER_SECONDS", "300")
    outcomes = run_sandboxed(fuzz, write(tmp_path / "a.pkl", str(count).encode()))
    assert sum(outcomes.values()) == count
    assert set(outcomes) <= {"ok", "unsafe", "damaged", "too_large"}
    assert min(outcomes[name] for name in ("ok", "unsafe", "damaged")) > count / 20


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_pickle(tmp_path / "a.pkl")
