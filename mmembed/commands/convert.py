"""Turn a pickle or .csd file into files that can be read without running anything.

    mmembed convert unaligned_50.pkl --out mosei
    mmembed prepare manifest mosei/manifest.jsonl --out shards

The command finds out what the file is:

- MMSA's dicts of splits (CMU-MOSEI, CMU-MOSI, CH-SIMS), and the tuples of dicts by dialogue that
  DialogueRNN and SDT read, become OUT/features/SPLIT.safetensors and OUT/manifest.jsonl with a line
  for every utterance;
- a .csd file becomes OUT/features/NAME.safetensors and OUT/manifest.jsonl with a line for every
  video, and OUT/intervals.safetensors with start and end in seconds of each of its steps;
- any other pickle of plain values becomes OUT/arrays.npz and OUT/values.json. There
  {"$array": NAME} or {"$bytes": NAME} stands for the array NAME, {"$complex": [REAL, IMAGINARY]}
  for a complex number, and {"$dict": [[KEY, VALUE], ...]} for a dict whose keys are not all texts;
  tuples and sets are lists.

Nothing that a pickle asks for is run. For large files, MMEMBED_READER_GIB and
MMEMBED_READER_SECONDS raise the limits of memory and time.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

import tyro

from mmembed.data import checks as integrity
from mmembed.data.manifest.utterance import Utterance, portable_key
from mmembed.errors import DataError, UsageError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import write_json
from mmembed.io.locks import lock_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmembed.data.untrusted.serialize import KeyPath

HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
Stream = Literal["audio", "video", "text"]

SEQUENCES: Final[Mapping[Stream, tuple[str, ...]]] = {
    "audio": ("covarep", "opensmile", "audio", "acoustic"),
    "video": ("facet", "openface", "video", "visual"),
    "text": ("glove", "word", "bert", "text"),
}
"""Parts of the names that CMU's SDK gives to sequences."""


@dataclass(frozen=True)
class Convert:
    """Settings of the command.

    Attributes:
        source: The pickle or .csd file to read.
        out: The folder to write to.
        stream: The stream that a .csd file holds. Needed only where the name of its sequence does
            not show it.
    """

    source: tyro.conf.Positional[Path]
    out: Path
    stream: Stream | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Convert one file, then say what came out."""
    settings = tyro.cli(Convert, prog="mmembed convert", args=argv, description=__doc__)
    from mmembed.data.corpora import CONVERTERS
    from mmembed.data.manifest.jsonl import write_manifest
    from mmembed.data.untrusted.pickles import read_pickle

    source, out = settings.source, settings.out
    if not source.is_file():
        raise DataError(str(source), "missing", "no such file")
    lock_folder(out)
    with source.open("rb") as file:
        head = file.read(len(HDF5_SIGNATURE))
    if head == HDF5_SIGNATURE:
        rows = convert_csd(source, out, settings.stream)
    else:
        values = read_pickle(source)
        kind = kind_of(values)
        if kind is None:
            print(f"{write_values(values, out)} arrays and values.json: {out}", flush=True)
            return
        del values
        rows = CONVERTERS[kind](source, out)
        if checks := integrity.read_report(out):
            print(integrity.describe(checks), flush=True)
    write_manifest(out / "manifest.jsonl", rows)
    print(f"{len(rows)} rows: {out / 'manifest.jsonl'}", flush=True)


def kind_of(values: object) -> str | None:
    """The reader of `CONVERTERS` for what a pickle holds, or None."""
    from mmembed.data.corpora.dialogue_pickles import layout_of

    if isinstance(values, dict) and values.keys() & {"train", "valid", "test"}:
        splits = [values[name] for name in ("train", "valid", "test") if name in values]
        if all(
            isinstance(split, dict)
            and "id" in split
            and any(str(name).endswith("_labels") for name in split)
            for split in splits
        ):
            return _corpus_of(splits)
    return "dialogue_pickles" if layout_of(values) else None


def _corpus_of(splits: Sequence[Mapping[str, Any]]) -> str | None:
    """Which corpus a pickle of MMSA is of, by its labels and its videos."""
    from mmembed.data.corpora.sentiment.corpus import folds_of

    if any(str(name).endswith("_labels_T") for name in splits[0]):
        return "sims"
    videos = {str(name).partition("$_$")[0] for split in splits for name in split["id"]}
    known = {name: len(videos & folds_of(name).keys()) for name in ("mosei", "mosi")}
    return max(known, key=lambda name: known[name]) if any(known.values()) else None


def convert_csd(source: Path, out: Path, stream: Stream | None) -> list[Utterance]:
    """Write features and intervals of a .csd file; a row for each video, in the file's order."""
    from safetensors.numpy import save

    from mmembed.data.feature_files import write_features
    from mmembed.data.untrusted.hdf5 import read_csd  # h5py comes with the extra `corpora`

    sequence, data = read_csd(source)
    known = [name for name, parts in SEQUENCES.items() if any(p in sequence.lower() for p in parts)]
    if stream is None and len(known) != 1:
        raise UsageError(f"{source}: is {sequence!r} audio, video or text? say so by --stream")
    stream = stream or known[0]
    if not data:
        raise DataError(str(source), "empty", "holds no video")
    file = f"features/{portable_key(sequence)}.safetensors"
    write_features(out / file, [{stream: features} for features, _ in data.values()])
    with atomic_file(out / "intervals.safetensors") as sink:
        sink.write(save({video: intervals for video, (_, intervals) in data.items()}))
    return [
        Utterance(portable_key(video), f"{file}#{row}", streams=(stream,) if len(features) else ())
        for row, (video, (features, _)) in enumerate(data.items())
    ]


def write_values(values: object, out: Path) -> int:
    """Write plain values as arrays.npz and values.json; returns the number of arrays."""
    import numpy as np

    from mmembed.data.untrusted.serialize import Packer

    arrays: dict[str, NDArray[Any]] = {}

    def put(path: KeyPath, array: NDArray[Any]) -> str:
        parts = []
        while path:
            path, key = path
            parts.append(quote(str(key), safe="", errors="replace").replace("..", "%2E%2E"))
        name = "/".join(reversed(parts)) or "values"
        if name in arrays:  # the keys 1 and "1" are different
            name = f"{name}~{len(arrays)}"
        arrays[name] = array
        return name

    tree = Packer(put).pack(values)
    # As numpy.savez, which takes no array called "file"; always the same bytes.
    with atomic_file(out / "arrays.npz") as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_json(out / "values.json", tree)
    return len(arrays)
