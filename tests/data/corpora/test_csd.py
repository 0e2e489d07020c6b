"""`.csd` sets with real ids and folds of CMU-MOSEI, against a word-by-word computation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from mmembed.data.checks import Check, read_report
from mmembed.data.corpora import CONVERTERS
from mmembed.data.corpora.sentiment.corpus import folds_of
from mmembed.data.corpora.sentiment.published import MOSEI, MOSI
from mmembed.data.feature_files import read_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

IDS = {
    "25522": "train",  # an id that is the beginning of the next
    "255224": "train",
    "-3g5yACwYnA": "train",
    "--qXJuDtHPw": "dev",
    "-6rXp3zJ3kc": "test",
    "-9YyBTjo1zo": None,  # labelled, but in no fold
}
WIDTHS = {"text": 300, "audio": 74, "video": 35}
FILES = {
    "text": "CMU_MOSEI_TimestampedWordVectors.csd",
    "audio": "CMU_MOSEI_COVAREP.csd",
    "video": "CMU_MOSEI_VisualFacet42.csd",
}

Sequence = dict[str, tuple[np.ndarray, np.ndarray]]


def write_csd(path: Path, root: str, data: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """As the SDK deploys: metadata as JSON in arrays of one."""
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in data.items():
            file[f"{root}/data/{video}/features"] = features
            file[f"{root}/data/{video}/intervals"] = intervals
        file[f"{root}/metadata/root name"] = [json.dumps(root).encode()]
        file[f"{root}/metadata/dimension names"] = [b"a plain string of an older file"]


def grid(seconds: float, rate: float, offset: float = 0.0) -> np.ndarray:
    """Rows that follow one another without a gap."""
    edges = offset + np.arange(int(seconds * rate) + 1) / rate
    return np.stack([edges[:-1], edges[1:]], axis=1)


@pytest.fixture(scope="module")
def streams() -> dict[str, Sequence]:
    draw = np.random.default_rng(3)
    made: dict[str, Sequence] = {"text": {}, "audio": {}, "video": {}, "labels": {}}
    for video in IDS:
        edges = np.cumsum(draw.uniform(0.1, 0.5, 31))
        words = np.stack([edges[:-1], edges[1:]], axis=1)
        words[7, 1] = words[7, 0]  # a word that lasts for nothing
        times = {"text": words, "audio": grid(9, 100), "video": grid(8, 29.97, 0.25)}
        for stream, intervals in times.items():
            values = draw.normal(size=(len(intervals), WIDTHS[stream])).astype(np.float32)
            made[stream][video] = values, intervals
        # Not in order, overlapping, ending on words and frames, past the end, before the start.
        labels = [(4.2, 6.0), (words[3, 0], words[9, 1]), (1.0, 1.5), (20.0, 22.0), (-0.4, 0.7)]
        scores = np.round(draw.uniform(0, 3, (len(labels), 7)), 4).astype(np.float32)
        made["labels"][video] = scores, np.array(labels)
    made["audio"]["-3g5yACwYnA"][0][450, 4] = -np.inf
    del made["audio"]["25522"], made["video"]["255224"]
    extra = made["audio"]["255224"]
    made["audio"]["2552"] = extra  # unlabelled, and the beginning of two that are not
    return made


@pytest.fixture(scope="module")
def folder(streams: dict[str, Sequence], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("csd")
    for stream, name in FILES.items():
        write_csd(path / name, stream, streams[stream])
    write_csd(path / "CMU_MOSEI_Labels.csd", "All Labels", streams["labels"])
    spoken = {
        video: (np.array([[f"w{n}" if n % 5 else "sp"] for n in range(len(times))], "S8"), times)
        for video, (_, times) in streams["text"].items()
    }
    write_csd(path / "CMU_MOSEI_TimestampedWords.csd", "words", spoken)
    return path


@dataclass(frozen=True)
class Import:
    out: Path
    rows: dict[str, Utterance]
    checks: dict[str, Check]

    def held(self, key: str) -> dict[str, np.ndarray]:
        """The features of an utterance."""
        media = self.rows[key].media
        assert media is not None
        file, _, number = media.partition("#")
        return read_features(self.out / file, int(number))


def convert(name: str, folder: Path, out: Path) -> Import:
    rows = {row.key: row for row in CONVERTERS[name](folder, out)}
    return Import(out, rows, {check.what: check for check in read_report(out)})


@pytest.fixture(scope="module")
def imported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Import:
    return convert("mosei", folder, tmp_path_factory.mktemp("out"))


def shared(one: np.ndarray, other: np.ndarray) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def row_by_row(sequence: tuple[np.ndarray, np.ndarray], segment: np.ndarray) -> np.ndarray:
    values, times = sequence
    found = [
        value for value, time in zip(values, times, strict=True) if shared(time, segment) > 1e-5
    ]
    finite = [[0.0 if np.isinf(x) else x for x in value] for value in found]
    return np.array(finite, np.float32).reshape(len(finite), values.shape[1])


def word_by_word(
    sequence: tuple[np.ndarray, np.ndarray] | None, words: np.ndarray, segment: np.ndarray
) -> np.ndarray:
    """The mean of a stream over each word of a segment, zeros for a word it has nothing of."""
    assert sequence is not None
    means = []
    for word in words:
        if shared(word, segment) > 1e-5 and word[1] - word[0] > 1e-5:
            rows = row_by_row(sequence, word)
            zeros = np.zeros(sequence[0].shape[1])
            means.append(sum(rows.astype(float), zeros) / len(rows) if len(rows) else zeros)
    return np.array(means)


def test_the_ids_are_real_and_in_their_folds() -> None:
    assert {video: folds_of(MOSEI.name).get(video) for video in IDS} == IDS


@pytest.mark.parametrize(
    ("corpus", "videos"),
    [
        (MOSEI, {"train": 2249, "dev": 300, "test": 678}),
        (MOSI, {"train": 52, "dev": 10, "test": 31}),
    ],
)
def test_the_official_folds_ship(corpus: object, videos: dict[str, int]) -> None:
    folds = list(folds_of(corpus.name).values())  # type: ignore[attr-defined]
    assert {name: folds.count(name) for name in videos} == videos
    assert len(folds) == sum(videos.values())


def test_segments_have_the_rows_that_overlap_them(
    imported: Import, streams: dict[str, Sequence]
) -> None:
    left, compared = set(imported.rows), 0
    for video, fold in IDS.items():
        labels, times = streams["labels"][video]
        for number, segment in enumerate(times):
            expected = {
                stream: values
                for stream in FILES
                if video in streams[stream]
                if len(values := row_by_row(streams[stream][video], segment))
            }
            key = f"mosei-{video}-{number}"
            if not expected:
                assert key not in left and segment[0] == 20
                continue
            left.remove(key)
            row, found = imported.rows[key], imported.held(key)
            assert found.keys() == expected.keys()
            for stream, values in expected.items():
                np.testing.assert_array_equal(found[stream], values)
                compared += 1
            assert row.labels.sentiment == pytest.approx(labels[number, 0])
            assert row.labels.emotions == pytest.approx(tuple(labels[number, 1:]))
            assert (row.start, row.end, row.split) == (max(0, segment[0]), segment[1], fold)
    assert not left and compared == 6 * 4 * 3 - 8
    assert imported.checks["ids without media"].items == tuple(
        f"{video}[3]" for video in sorted(IDS)
    )


def test_ids_are_never_taken_for_others_they_begin_like(imported: Import) -> None:
    checks = imported.checks
    assert imported.held("mosei-255224-0").keys() == {"text", "audio"}
    assert imported.held("mosei-25522-0").keys() == {"text", "video"}
    assert checks["videos without audio"].items == ("25522",)
    assert checks["videos without video"].items == ("255224",)
    assert checks["videos of audio without labels"].items == ("2552",)


def test_the_report_tells_what_is_wrong(imported: Import, streams: dict[str, Sequence]) -> None:
    checks = imported.checks
    infinite = [  # the row from 4.5 to 4.51 s
        f"-3g5yACwYnA[{n}]"
        for n, segment in enumerate(streams["labels"]["-3g5yACwYnA"][1])
        if shared(np.array([4.5, 4.51]), segment) > 1e-5
    ]
    found = {what: check.found for what, check in checks.items()}
    assert (checks["segments in train"].found, checks["segments in train"].expected) == (
        "12",
        "16327",
    )
    assert found["segments in dev"] == "4" and not checks["segments in dev"].ok
    assert (found["width of audio"], checks["width of audio"].ok) == ("74", True)
    assert (found["rate of audio"], found["rate of video"]) == ("100 Hz", "29.97 Hz")
    assert found["rows of text without duration"] == "6"
    count = len(infinite)
    assert found["audio not finite"] == f"{count}, with {count} -inf, replaced by 0"
    assert checks["audio not finite"].items == tuple(infinite) and count
    assert checks["video not finite"].ok
    assert checks["SHA-256 of CMU_MOSEI_COVAREP.csd"].expected == "no published checksum"
    assert found["start before the video"] == "6, set to 0"
    assert not any(what for what, check in checks.items() if not check.found)


def test_transcripts_are_the_words_that_overlap(
    imported: Import, streams: dict[str, Sequence]
) -> None:
    words = streams["text"]["--qXJuDtHPw"][1]
    spoken = [
        f"w{n}"
        for n, word in enumerate(words)
        if n % 5 and shared(word, np.array([4.2, 6.0])) > 1e-5
    ]
    assert imported.rows["mosei---qXJuDtHPw-0"].transcript == " ".join(spoken)


def test_averaged_over_words_every_stream_has_one_row_a_word(
    folder: Path, streams: dict[str, Sequence], tmp_path: Path
) -> None:
    imported, compared = convert("mosei_words", folder, tmp_path), 0
    for video in IDS:
        values, words = streams["text"][video]
        for number, segment in enumerate(streams["labels"][video][1]):
            if segment[0] == 20:
                continue
            found = imported.held(f"mosei-{video}-{number}")
            said = [n for n, w in enumerate(words) if n != 7 and shared(w, segment) > 1e-5]
            np.testing.assert_array_equal(found["text"], values[said])
            for stream in ("audio", "video"):
                sequence = streams[stream].get(video)
                assert (stream in found) == (sequence is not None)
                if sequence is not None:
                    expected = word_by_word(sequence, words, segment)
                    np.testing.assert_allclose(found[stream], expected, atol=1e-6)
                    compared += 1
    assert compared == 6 * 4 * 2 - 8
    assert imported.checks["form"].found == ".csd, averaged over words"


def test_files_deployed_in_segments_are_put_together(
    streams: dict[str, Sequence], tmp_path: Path
) -> None:
    """What the SDK writes after alignment: `video[3]`, under root names as file names."""
    source, out = tmp_path / "deployed", tmp_path / "out"
    source.mkdir()
    values, times = streams["audio"]["-6rXp3zJ3kc"]
    parts = {
        f"-6rXp3zJ3kc[{n}]": (values[n * 300 :][:300], times[n * 300 :][:300]) for n in range(3)
    }
    write_csd(source / "COVAREP.csd", "COVAREP", dict(reversed(parts.items())))
    labels, spans = streams["labels"]["-6rXp3zJ3kc"]
    single = {f"-6rXp3zJ3kc[{n}]": (labels[n : n + 1], spans[n : n + 1]) for n in (4, 1)}
    write_csd(source / "All Labels.csd", "All Labels", single)
    deployed = convert("mosei", source, out)
    assert set(deployed.rows) == {"mosei--6rXp3zJ3kc-1", "mosei--6rXp3zJ3kc-4"}
    expected = row_by_row((values, times), spans[1])
    np.testing.assert_array_equal(deployed.held("mosei--6rXp3zJ3kc-1")["audio"], expected)


def test_labels_of_sentiment_alone_and_of_unknown_width(tmp_path: Path) -> None:
    times = np.array([[0.0, 1.0]])
    write_csd(tmp_path / "CMU_MOSI_COVAREP.csd", "COVAREP", {"a": (np.ones((1, 74)), times)})
    labels = tmp_path / "CMU_MOSI_Opinion_Labels.csd"
    write_csd(labels, "Opinion Segment Labels", {"a": (np.array([[-2.4]]), times)})
    (row,) = CONVERTERS["mosi"](tmp_path, tmp_path / "out")
    assert (row.labels.sentiment, row.labels.emotions) == (pytest.approx(-2.4), None)
    write_csd(labels, "Opinion Segment Labels", {"a": (np.ones((1, 3)), times)})
    with pytest.raises(DataError, match=r"labels of shape \(1, 3\); known are rows of sentiment"):
        CONVERTERS["mosi"](tmp_path, tmp_path / "out")


def test_what_a_folder_lacks_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / FILES["audio"]).write_bytes((folder / FILES["audio"]).read_bytes())
    with pytest.raises(DataError, match=r"needs the labels .* found CMU_MOSEI_COVAREP\.csd"):
        CONVERTERS["mosei"](tmp_path, tmp_path / "out")
    labels = "CMU_MOSEI_Labels.csd"
    (tmp_path / labels).write_bytes((folder / labels).read_bytes())
    with pytest.raises(DataError, match="has no word vectors"):
        CONVERTERS["mosei_words"](tmp_path, tmp_path / "out")
