"""CMU-MOSI as vectors, one an utterance: `features.npz` and `utterances.csv`.

`features.npz` holds text (N, 100), audio (N, 73), video (N, 100) and label (N,), 0 negative and 1
positive; row n of `utterances.csv` (split, video_id, clip, label, transcript) is their row n. These
are the features of bc-LSTM (Poria et al., ACL 2017), as arrays. They have their own
split by video, train and test, and no sentiment scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from mmembed.data.checks import Check, checksum, compare, none_of
from mmembed.data.corpora.files import read_arrays
from mmembed.data.corpora.sentiment.corpus import SPLITS, Segment
from mmembed.data.corpora.sentiment.streams import Finite, widths, write_splits
from mmembed.data.corpora.tables import read_table
from mmembed.data.feature_files import Features
from mmembed.errors import DataError

FILES: Final = ("features.npz", "utterances.csv")
STREAMS: Final = {"text": 100, "audio": 73, "video": 100}
CATEGORIES: Final = {"negative": 1023, "positive": 1176}  # utterances of each
COLUMNS: Final = ("split", "video_id", "clip", "label", "transcript")
COUNTS: Final = {"train": 1447, "dev": 0, "test": 752}


def convert_bclstm(folder: Path, out: Path) -> tuple[list[Segment], list[Check]]:
    """Write the vectors of a folder split by split; its segments and what is wrong with them.

    Raises:
        DataError: the files do not fit each other or what is said of them above.
    """
    arrays, rows = _read(folder)
    segments = []
    for number, row in enumerate(rows):
        if row["label"] not in ("0", "1") or row["split"] not in SPLITS:
            where = f"{folder / FILES[1]}:{number + 2}"
            what = f"label {row['label']!r} and split {row['split']!r}: 0 or 1, train or test"
            raise DataError(where, "labels", what)
        segments.append(
            Segment(
                row["video_id"],
                row["clip"],
                transcript=row["transcript"] or None,
                split=SPLITS[row["split"]],
                category=list(CATEGORIES)[int(row["label"])],
            )
        )
    finite = Finite()

    def features(n: int) -> Features:
        return {name: finite(name, segments[n].name, arrays[name][None, n]) for name in STREAMS}

    written = write_splits(out, segments, features)
    differing = [
        s.name
        for s, row, label in zip(segments, rows, arrays["label"], strict=True)
        if int(row["label"]) != label
    ]
    checks = [
        *(checksum(folder / name, None) for name in FILES),
        *widths({name: arrays[name].shape[1] for name in STREAMS}, STREAMS),
        none_of("labels of the two files that differ", differing, "those of the CSV kept"),
        *(
            compare(name, sum(s.category == name for s in segments), count)
            for name, count in CATEGORIES.items()
        ),
        *finite.checks(tuple(STREAMS)),
    ]
    return written, checks


def _read(folder: Path) -> tuple[dict[str, NDArray[Any]], list[dict[str, str]]]:
    arrays_path, rows_path = (folder / name for name in FILES)
    names = (*STREAMS, "label")
    arrays = dict(zip(names, read_arrays(arrays_path, *names), strict=True))
    rows = [row for _, row in read_table(rows_path, COLUMNS)]
    for name, array in arrays.items():
        if len(array) != len(rows) or array.ndim != (1 if name == "label" else 2):
            what = f"{name} has shape {array.shape} for {len(rows)} rows of {FILES[1]}"
            raise DataError(str(arrays_path), "features", what)
    return arrays, rows
