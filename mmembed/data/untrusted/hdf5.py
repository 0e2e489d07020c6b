"""HDF5 files that may be hostile, and the `.csd` files of CMU's multimodal SDK.

HDF5 can point outside of itself: external and soft links, virtual data sets, raw data kept in other
files. A crafted file returns the bytes of another one through them. Here every object is checked
before any data is read; anything but a group or a data set of numbers or text that lies within the
file, in one place, is refused. All of this happens in a sandboxed process, since HDF5 is C code and
can be crashed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from mmembed.data.untrusted.sandbox import UnsafeFileError, run_sandboxed
from mmembed.errors import DataError

EXPANSION: Final = 64  # times the size of the file that its data may declare, compressed or absent
SLACK: Final = 2**20  # bytes that any file may declare
FILTERS: Final = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_LZF,
)
TYPES: Final = (h5py.h5t.TypeStringID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)
LINKS: Final = {h5py.h5l.TYPE_SOFT: "soft", h5py.h5l.TYPE_EXTERNAL: "external"}

Tree = dict[str, Any]
"""Name -> group or data set: an array of numbers, or text as str or nested lists of str."""

Intervals = NDArray[np.float64]
"""(T, 2): from and to in seconds."""


def read_csd(path: Path) -> tuple[str, dict[str, tuple[NDArray[np.float32], Intervals]]]:
    """A `.csd` file of numbers; the layout is that of CMU-MultimodalSDK's computational sequences.

    Returns:
        The name of its root, such as "COVAREP", and video id -> features (T, D) and intervals.
        Nothing is repaired: there may be NaN and infinite values, and intervals of no length.

    Raises:
        DataError: with reason "unsafe" for what points out of the file, "csd" for another layout,
            or one of `run_sandboxed`.
    """
    name, videos = _sequence(path)
    sequences = {}
    for video, features, intervals in videos:
        if features.dtype == object:
            message = f"{video!r} holds words, no features: see read_csd_words"
            raise DataError(str(path), "csd", message)
        sequences[video] = features.astype(np.float32, copy=False), intervals
    return name, sequences


def read_csd_words(path: Path) -> dict[str, tuple[tuple[str, ...], Intervals]]:
    """A `.csd` file of words: video id -> its words and their intervals.

    Raises:
        DataError: as for `read_csd`.
    """
    words = {}
    for video, features, intervals in _sequence(path)[1]:
        if features.dtype != object or features.shape[1] != 1:
            raise DataError(str(path), "csd", f"{video!r} holds no words: see read_csd")
        words[video] = tuple(features[:, 0]), intervals
    return words


def _sequence(path: Path) -> tuple[str, list[tuple[str, NDArray[Any], Intervals]]]:
    """Name of a file's root; id, features (T, D) and intervals of its videos; words are objects."""
    tree: Tree = run_sandboxed(_read, path)
    roots = [name for name, group in tree.items() if isinstance(group, dict) and "data" in group]
    if len(tree) != 1 or not roots or not isinstance(tree[roots[0]]["data"], dict):
        raise DataError(
            str(path),
            "csd",
            f"not a computational sequence: at its top {sorted(tree)[:5]}, where one group with "
            "data and metadata is expected",
        )
    videos = []
    for video, item in tree[roots[0]]["data"].items():
        group = item if isinstance(item, dict) else {}
        features, intervals = group.get("features"), group.get("intervals")
        if isinstance(features, list):
            features = np.array(features, object)
        if not isinstance(features, np.ndarray) or not isinstance(intervals, np.ndarray):
            raise DataError(str(path), "csd", f"{video!r} lacks features or intervals")
        if features.ndim == 1:
            features = features[:, None]
        fits = features.ndim == 2 and intervals.shape == (len(features), 2)
        if not fits or intervals.dtype.kind not in "fiu":
            raise DataError(
                str(path),
                "csd",
                f"{video!r} has features {features.shape} and intervals {intervals.shape}; "
                "(T, D) and (T, 2) are allowed",
            )
        videos.append((video, features, intervals.astype(np.float64, copy=False)))
    return roots[0], videos


def _read(path: str) -> Tree:
    """Check everything, then read everything; runs in the sandbox."""
    try:
        # The driver is named: otherwise the environment may choose one that opens further files.
        file = h5py.File(path, "r", driver="sec2", locking=False)
    except OSError as error:
        raise UnsafeFileError(f"not an HDF5 file, or damaged ({error})", "damaged") from None
    with file:
        tree: Tree = _data(_Checker(EXPANSION * Path(path).stat().st_size + SLACK).check(file.id))
        return tree


class _Checker:
    """Walks over groups without following a link or reading data."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.declared = 0
        self.seen: set[Any] = set()

    def check(self, item: Any, where: str = "") -> Any:
        """A checked data set, or name -> data set or group."""
        if not isinstance(item, h5py.h5g.GroupID | h5py.h5d.DatasetID):
            raise UnsafeFileError(f"{where} is neither a group nor a data set")
        address = h5py.h5o.get_info(item).addr
        if address in self.seen:
            raise UnsafeFileError(f"{where} is a second link to another object")
        self.seen.add(address)
        if isinstance(item, h5py.h5d.DatasetID):
            self.check_dataset(item, where)
            return item
        tree: Tree = {}
        for name in list(item):
            text = name.decode(errors="replace")
            kind = item.links.get_info(name).type
            if kind != h5py.h5l.TYPE_HARD:
                link = LINKS.get(kind, "foreign")
                raise UnsafeFileError(f"{where}/{text} is a {link} link")
            tree[text] = self.check(h5py.h5o.open(item, name), f"{where}/{text}")
        return tree

    def check_dataset(self, item: Any, where: str) -> None:
        made, kind = item.get_create_plist(), item.get_type()
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise UnsafeFileError(f"{where} is virtual: its data lie in other files")
        if made.get_external_count():
            raise UnsafeFileError(f"{where} keeps its data in other files")
        for number in range(made.get_nfilters()):
            if (code := made.get_filter(number)[0]) not in FILTERS:
                raise UnsafeFileError(f"{where} needs filter {code}")
        if not isinstance(kind, TYPES):
            what = f"{where} holds {type(kind).__name__}; only numbers and text are allowed"
            raise UnsafeFileError(what)
        self.declared += math.prod(item.shape) * max(kind.get_size(), 1)
        if self.declared > self.limit:
            what = f"up to {where} it declares {self.declared:.2g} bytes; "
            what += f"at most {EXPANSION} times the size of the file is allowed"
            raise UnsafeFileError(what, "too_large")


def _data(item: Any) -> Any:
    if isinstance(item, dict):
        return {name: _data(inner) for name, inner in item.items()}
    dataset = h5py.Dataset(item)
    if dataset.dtype.kind in "SO":
        return dataset.asstr("utf-8", errors="replace")[()]
    return np.asarray(dataset[()])
