"""HDF5 files that may come from strangers, and the `.csd` files of CMU's multimodal SDK.

HDF5 can point outside of itself: external and soft links, virtual data sets, raw data kept in other
files. A crafted file returns the bytes of another one through them. Here every object is looked at
before any data is read; whatever is not a group or a data set of numbers or text that lies within
the file, in one place, is refused. All of this happens in a sandboxed process, since HDF5 is C and
can be crashed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.untrusted.sandbox import UnsafeFileError, run_sandboxed
from mmembed.errors import DataError

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
EXPANSION: Final = 64  # times the size of the file that its data may declare, compressed or absent
SLACK: Final = 2**20  # bytes that any file may declare
FILTERS: Final = (
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_SZIP,
    h5py.h5z.FILTER_LZF,
)
LINKS: Final = {h5py.h5l.TYPE_SOFT: "soft", h5py.h5l.TYPE_EXTERNAL: "external"}

Tree = dict[str, Any]
"""Name -> group or data set: an array of numbers, or text as str or nested lists of str."""


@dataclass(frozen=True)
class Csd:
    """A computational sequence.

    Attributes:
        name: of its root, such as "COVAREP".
        data: video id -> features (T, D) float32, intervals (T, 2) float64 from and to in seconds.
            Nothing is repaired: there may be NaN and infinite values, and intervals of no length.
        metadata: JSON objects as dict, anything else as the string it is.
    """

    name: str
    data: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float64]]]
    metadata: Mapping[str, str | dict[str, Any]]


def read_csd(path: Path, *, memory: int | None = None, seconds: Seconds | None = None) -> Csd:
    """A `.csd` file of numbers; the layout is that of CMU-MultimodalSDK's computational sequences.

    Args:
        path: the file.
        memory: see `mmembed.data.untrusted.sandbox.run_sandboxed`.
        seconds: see there.

    Raises:
        DataError: with reason "unsafe" for what points out of the file, "csd" for another layout,
            or one of `run_sandboxed`.
    """
    name, data, metadata = _parts(path, read_hdf5(path, memory=memory, seconds=seconds))
    found = {}
    for video, (features, intervals) in data.items():
        if features.dtype == object:
            raise DataError(
                str(path), "csd", f"{video!r} holds words, no features: see read_csd_words"
            )
        found[video] = features.astype(np.float32, copy=False), intervals
    return Csd(name, found, metadata)


def read_csd_words(
    path: Path, *, memory: int | None = None, seconds: Seconds | None = None
) -> dict[str, tuple[tuple[str, ...], NDArray[np.float64]]]:
    """A `.csd` file of words: video id -> its words and their intervals (T, 2) in seconds.

    Raises:
        DataError: as for `read_csd`.
    """
    _, data, _ = _parts(path, read_hdf5(path, memory=memory, seconds=seconds))
    for video, (features, _) in data.items():
        if features.dtype != object or features.shape[1] != 1:
            raise DataError(str(path), "csd", f"{video!r} holds no words: see read_csd")
    return {video: (tuple(words[:, 0]), intervals) for video, (words, intervals) in data.items()}


def read_hdf5(path: Path, *, memory: int | None = None, seconds: Seconds | None = None) -> Tree:
    """All data of an HDF5 file as nested dicts; attributes are left out.

    Raises:
        DataError: as for `read_csd`.
    """
    tree: Tree = run_sandboxed(_read, path, memory=memory, seconds=seconds)
    return tree


def _parts(
    path: Path, tree: Tree
) -> tuple[str, dict[str, tuple[NDArray[Any], NDArray[np.float64]]], dict[str, Any]]:
    """Name, data and metadata of the one sequence that a file holds."""
    roots = [name for name, group in tree.items() if isinstance(group, dict) and "data" in group]
    if len(tree) != 1 or not roots or not isinstance(tree[roots[0]]["data"], dict):
        raise DataError(
            str(path),
            "csd",
            f"not a computational sequence: at its top {sorted(tree)[:5]}, where one group with "
            "data and metadata is expected",
        )
    root = tree[roots[0]]
    data = {}
    for video, item in root["data"].items():
        features, intervals = (
            (item.get("features"), item.get("intervals")) if isinstance(item, dict) else (None,) * 2
        )
        if isinstance(features, list):  # words
            features = np.array(features, object)
        if not isinstance(features, np.ndarray) or not isinstance(intervals, np.ndarray):
            raise DataError(str(path), "csd", f"{video!r} lacks features or intervals")
        if features.ndim == 1:
            features = features[:, None]
        if (
            features.ndim != 2
            or intervals.shape != (len(features), 2)
            or intervals.dtype.kind not in "fiu"
        ):
            raise DataError(
                str(path),
                "csd",
                f"{video!r} has features {features.shape} and intervals {intervals.shape}; "
                "(T, D) and (T, 2) are allowed",
            )
        data[video] = features, intervals.astype(np.float64, copy=False)
    metadata = root.get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    return roots[0], data, {key: _metadata(value) for key, value in metadata.items()}


def _metadata(value: Any) -> Any:
    """JSON objects and strings as such; anything else, as in older files, stays the text it is."""
    if isinstance(value, np.ndarray):
        value = list(value.ravel())
    while isinstance(value, list):
        value = value[0] if value else ""
    text = "" if isinstance(value, dict) else str(value)
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed if isinstance(parsed, dict | str) else text


def _read(path: str) -> Tree:
    """Check everything, then read everything; runs in the sandbox."""
    try:
        # The driver is named: otherwise the environment may choose one that opens further files.
        file = h5py.File(path, "r", driver="sec2", locking=False)
    except OSError as error:
        raise UnsafeFileError("damaged", f"not an HDF5 file, or damaged ({error})") from None
    with file:
        limit = EXPANSION * Path(path).stat().st_size + SLACK
        return _data(_Checker(limit).group(file.id, "/"))


class _Checker:
    """Walks over groups without following a link or reading data."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.declared = 0
        self.seen: set[Any] = set()

    def group(self, group: Any, place: str) -> Tree:
        """Name -> checked data set or group."""
        self.once(group, place)
        tree: Tree = {}
        for name in list(group):
            where = f"{place}{name.decode(errors='replace')}"
            kind = group.links.get_info(name).type
            if kind != h5py.h5l.TYPE_HARD:
                raise UnsafeFileError("unsafe", f"{where} is a {LINKS.get(kind, 'foreign')} link")
            item = h5py.h5o.open(group, name)
            if isinstance(item, h5py.h5g.GroupID):
                tree[name.decode(errors="replace")] = self.group(item, f"{where}/")
            elif isinstance(item, h5py.h5d.DatasetID):
                self.dataset(item, where)
                tree[name.decode(errors="replace")] = item
            else:
                raise UnsafeFileError("unsafe", f"{where} is neither a group nor a data set")
        return tree

    def once(self, item: Any, where: str) -> None:
        address = h5py.h5o.get_info(item).addr
        if address in self.seen:
            raise UnsafeFileError("unsafe", f"{where} is a second link to another object")
        self.seen.add(address)

    def dataset(self, item: Any, where: str) -> None:
        self.once(item, where)
        made = item.get_create_plist()
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise UnsafeFileError(
                "unsafe", f"{where} is a virtual data set: its data lie in other files"
            )
        if made.get_external_count():
            raise UnsafeFileError("unsafe", f"{where} keeps its data in other files")
        for number in range(made.get_nfilters()):
            if made.get_filter(number)[0] not in FILTERS:
                raise UnsafeFileError(
                    "unsafe", f"{where} needs filter {made.get_filter(number)[0]}"
                )
        kind = item.get_type()
        if not isinstance(
            kind, h5py.h5t.TypeStringID | h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID
        ):
            raise UnsafeFileError(
                "unsafe", f"{where} holds {type(kind).__name__}; numbers and text may be"
            )
        self.declared += math.prod(item.shape) * max(kind.get_size(), 1)
        if self.declared > self.limit:
            raise UnsafeFileError(
                "too_large",
                f"up to {where} it declares {self.declared:.2g} bytes; "
                f"at most {EXPANSION} times the size of the file is believed",
            )


def _data(tree: Tree) -> Tree:
    return {
        name: _data(item) if isinstance(item, dict) else _array(h5py.Dataset(item))
        for name, item in tree.items()
    }


def _array(dataset: h5py.Dataset) -> NDArray[Any]:
    if dataset.dtype.kind in "SO":
        return np.asarray(dataset.asstr("utf-8", errors="replace")[()], dtype=object)
    return np.asarray(dataset[()])
