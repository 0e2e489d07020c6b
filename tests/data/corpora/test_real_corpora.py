"""Readers on the corpora themselves, where MMEMBED_CORPORA names a folder that holds them.

Counts are those that come with this selection of them, which is not everywhere the whole corpus.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from mmembed.data.checks import read_report
from mmembed.data.corpora import CONVERTERS, CORPORA
from mmembed.data.feature_files import read_features

FOLDER = os.environ.get("MMEMBED_CORPORA")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(FOLDER is None, reason="MMEMBED_CORPORA names no folder of corpora"),
]

COUNTS = {  # folder, rows of each split, speakers
    "cmu_arctic": ("cmu_arctic", {"train": 792, "dev": 99, "heldout": 99}, 3),
    "emodb": ("emodb", {"train": 277, "dev": 31, "heldout": 31}, 10),
    "emovo": ("emovo", {"train": 504, "dev": 42, "heldout": 42}, 6),
    "fsdd": ("fsdd", {"train": 780, "dev": 120, "heldout": 300}, 6),
    "goemotions": ("goemotions", {"train": 43_410, "dev": 5_426, "test": 5_427}, 0),
    "grid": ("grid_av", {"train": 80, "dev": 10, "heldout": 11, None: 10}, 1),
    "meld": ("meld_text", {"train": 9_989, "dev": 1_109, "test": 2_610}, 304),
    "ravdess": ("ravdess", {None: 1_200}, 20),
    "semeval2018": ("semeval2018_ec_en", {"train": 6_838, "dev": 886, "test": 3_259}, 0),
    "xed": ("xed", {"train": 55_420, "dev": 7_097, "test": 6_700}, 0),
}
CONVERTED = {
    "mosei": ("cmu_mosei_labels", {"train": 16_327, "dev": 1_871, "test": 4_662, None: 399}),
    "mosi": ("cmu_mosi_bclstm", {"train": 1_447, "test": 752}),
    "ravdess_faces": ("ravdess_av_features", {None: 1_200}),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name: str) -> None:
    folder, splits, speakers = COUNTS[name]
    assert FOLDER is not None
    rows = CORPORA[name](Path(FOLDER) / folder)
    assert Counter(row.split for row in rows) == splits
    assert len({row.speaker for row in rows} - {None}) == speakers
    assert len({row.key for row in rows}) == len(rows)
    if name == "xed":
        assert sum(row.key.startswith("xed-en-annotated-") for row in rows) == 17_528
    if name == "grid":
        assert sum(row.words is not None for row in rows) == 100


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_counts(name: str, tmp_path: Path) -> None:
    folder, splits = CONVERTED[name]
    assert FOLDER is not None
    rows = CONVERTERS[name](Path(FOLDER) / folder, tmp_path)
    assert Counter(row.split for row in rows) == splits
    checks = {check.what: check for check in read_report(tmp_path)}
    if name == "mosei":
        assert checks["splits other than the official folds"].ok
        assert checks["sentiment outside [-3, 3]"].ok
    else:
        file, _, row = str(rows[-1].media).rpartition("#")
        widths = {s: x.shape for s, x in read_features(tmp_path / file, int(row)).items()}
        expected = {"mosi": {"text": (1, 100), "audio": (1, 73), "video": (1, 100)}}
        assert widths == expected.get(name, {"video": (1, 35)})
