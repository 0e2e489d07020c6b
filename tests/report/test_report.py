"""The report of a small run written here, whole, in parts, and hostile."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.page import HOSTILE, read_page

from mmembed import report
from mmembed.commands import report as command
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.errors import CorruptError, UsageError
from mmembed.report import write_report
from mmembed.report.embedding_map import embedding_map, flat_map
from mmembed.report.emotion import strongest_emotions
from mmembed.report.pipeline import word_differences
from mmembed.report.plots import CURVE_POINTS, _thin
from mmembed.report.run_folder import Points, flatten, in_stream_order, strongest
from mmembed.report.score_table import Score, number, percent

TITLES = (
    "Learning curves",
    "Speech and speakers",
    "Sentiment",
    "Emotions",
    "Map of embeddings",
    "Weights",
    "Configuration",
)


def over_seeds(mean: float) -> dict[str, float]:
    return {"mean": mean, "std": 0.012, "low": mean - 0.05, "high": mean + 0.05}


def emotion_results(levels: dict[str, float]) -> dict[str, Any]:
    """What the emotion study writes, for stream subsets of these correlations."""
    names = ("acc2_nonneg", "f1_nonneg", "acc2_pos", "f1_pos", "acc7", "acc5_rounded")
    sentiment = {
        subset: {
            "mae": over_seeds(1.5 - level),
            "correlation": over_seeds(level),
            **{name: over_seeds(level) for name in names},
        }
        for subset, level in levels.items()
    }
    emotions = {
        subset: {name: {"wa": over_seeds(level), "f1": over_seeds(level)} for name in EMOTIONS}
        for subset, level in levels.items()
    }
    return {
        "tests": {"sentiment": {"variants": sentiment, "constant": {"mae": 1.313}}},
        "emotions": {"variants": emotions, "constant": {"happy": {"wa": 0.5, "f1": 0.7}}},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with every part but embeddings, and hostile text wherever text can be."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "run & <b>"

    def write(name: str, value: object) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))

    write("pretrain/run.json", {"name": "tiny", "optim": {"lr": 0.0003}, "note": HOSTILE})
    lines = [
        {"split": "train", "step": s, "epoch": 0, "loss": 1 / s, HOSTILE: 2.0} for s in range(1, 9)
    ]
    lines += [{"split": "dev", "step": 8, "epoch": 0, "wer": 0.4, "speaker_accuracy": 0.5}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pretrain/metrics.jsonl").write_text(text + '{"split": "tra')  # killed here
    sample = {"key": HOSTILE, "reference": f"a {HOSTILE} c", "hypothesis": "a <img src=x> $x$"}
    write(
        "pretrain/evaluation.json",
        {
            "heldout": {
                "wer": 0.1234,
                "cer": 0.0456,
                "speaker_accuracy": 0.9512,
                "utterances": 321,
                "chance_speaker_accuracy": 0.0417,
                "by_streams": {"video": {"wer": 0.777, "cer": 0.666}},
                "samples": [sample],
            },
            "test": {"wer": 0.2222, "cer": 0.1111, "utterances": 123},
            "fusion_weights": {"audio": 0.4, "video": 0.4, HOSTILE: 0.2},
            "layer_weights": {"speaker": {"frontend": 0.25, "audio 1": 0.75}},
        },
    )
    write(
        "emotion/results.json",
        {
            **emotion_results({"audio+video": 0.654, "audio": 0.321}),
            "controls": {"untrained": emotion_results({"audio+video": 0.111})},
            "seeds": [0, 1],
            "layer_weights": {"frontend": 1.0},
        },
    )
    sentiment = np.linspace(-3, 3, 12)
    intensity = np.maximum(rng.normal(size=(12, 6)), 0)
    write(
        "emotion/predictions.json",
        {
            "keys": [f"k{i}" for i in range(12)],
            "speakers": [HOSTILE, "$\\bad{"] * 6,
            "sentiment": {"truth": sentiment.tolist(), "predicted": (sentiment / 2).tolist()},
            "emotions": {"truth": intensity.tolist(), "predicted": (intensity / 2).tolist()},
        },
    )
    write("results.json", {"wer": 0.1234, "sentiment_correlation": {"audio": 0.321}})
    return folder


def test_the_page_is_whole_closed_and_refers_to_nothing_outside(run: Path) -> None:
    html = write_report(run).read_text()
    page = read_page(html)
    assert page.sections == [title.lower().replace(" ", "-") for title in TITLES]
    links = [attributes["href"] for name, attributes in page.seen if name == "a"]
    assert links == [f"#{anchor}" for anchor in page.sections]
    assert "<img" not in html
    assert len(html) < 3_000_000


def test_hostile_text_is_shown_and_not_obeyed(run: Path) -> None:
    page = read_page(write_report(run).read_text())
    assert page.text.count(HOSTILE) >= 6  # curve, sample, weights, legend, configuration
    assert "<img src=x> $x$" in page.text
    assert "$\\bad{" in page.text
    assert "run & <b>" in page.text


def test_the_numbers_shown_are_those_given(run: Path) -> None:
    text = read_page(write_report(run).read_text()).text
    for shown in ("12.3 %", "4.6 %", "95.1 %", "321", "4.2 %", "77.7 %", "66.6 %", "22.2 %", "123"):
        assert shown in text, shown
    assert "0.846 \u00b1 0.012 0.796 to 0.896" in text  # MAE of audio+video
    assert "65.4 \u00b1 1.2 60.4 to 70.4" in text
    assert "1.313" in text and "0.111" in text
    assert "optim.lr 0.0003" in text
    assert "over 2 seeds" in text


def test_the_best_streams_are_bold_and_baselines_are_not(run: Path) -> None:
    html = write_report(run).read_text()
    assert "<td><b>0.846</b>" in html and "<td><b>0.654</b>" in html
    assert "<td><b>1.389</b>" not in html and "<td><b>0.321</b>" not in html


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    first = write_report(run, tmp_path / "new" / "a.html").read_bytes()
    assert first == write_report(run, tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize(
    ("part", "section"),
    [
        ("pretrain/run.json", "Configuration"),
        ("pretrain/metrics.jsonl", "Learning curves"),
        ("pretrain/evaluation.json", "Speech and speaker scores"),
        ("emotion/results.json", "Sentiment scores"),
        ("emotion/predictions.json", "Predictions"),
        ("results.json", "Embeddings"),
    ],
)
def test_any_part_may_be_missing(run: Path, part: str, section: str) -> None:
    (run / part).unlink()
    text = read_page(write_report(run).read_text()).text
    assert f"{section} missing" in text


def test_one_part_alone_is_enough(run: Path) -> None:
    shutil.rmtree(run / "emotion")
    shutil.rmtree(run / "pretrain")
    text = read_page(write_report(run).read_text()).text
    assert text.count("missing: this run has no") == 9
    assert "12.3 %" in text


def test_the_fields_of_older_runs_give_the_same_page(run: Path, tmp_path: Path) -> None:
    new = write_report(run, tmp_path / "new.html").read_bytes()
    results = run / "emotion/results.json"
    results.write_text(results.read_text().replace('"constant"', '"trivial"'))
    assert write_report(run, tmp_path / "old.html").read_bytes() == new


def test_nothing_to_report_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to report"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        write_report(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_damaged_json_names_the_file(run: Path) -> None:
    (run / "results.json").write_text('{"wer": ')
    with pytest.raises(CorruptError, match=r"results\.json: not valid JSON"):
        write_report(run)


def test_the_command_prints_where_the_report_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.html"
    command.main([str(run), "--out", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    assert out.is_file()


def test_no_template_and_no_module_but_plots_writes_markup() -> None:
    """Whatever else a template shows is escaped by jinja2."""
    sources = {path.name: path.read_text() for path in Path(report.__file__).parent.rglob("*.*")
               if path.suffix in (".py", ".html", ".css")}  # fmt: skip
    marked = re.compile(r"Markup\(|\|\s*safe|autoescape false|<script")
    assert {name for name, text in sources.items() if marked.search(text)} == {"plots.py"}


def test_numbers_that_are_not_known_are_dashes() -> None:
    assert (number(0.12345), percent(0.12345)) == ("0.123", "12.3 %")
    assert {number(None), number(float("nan")), percent("0.5"), percent(None)} == {"\u2013"}


def test_transcripts_mark_the_minimal_edit() -> None:
    sample = {"reference": "the cat sat down", "hypothesis": "the big cat sat up"}
    assert word_differences(sample) == (
        [("the", False), ("cat sat", False), ("down", True)],
        [("the", False), ("big", True), ("cat sat", False), ("up", True)],
    )
    assert word_differences({"reference": "a b", "hypothesis": ""}) == ([("a b", True)], [])
    assert word_differences({"reference": " ", "hypothesis": "a"}) == ([], [("a", False)])


def test_the_confusion_matrix_counts_the_strongest_emotions(run: Path) -> None:
    happy, sad = np.eye(6)[:2]
    unknown, none = np.full(6, np.nan), np.zeros(6)
    truth = np.stack([happy, happy, sad, unknown, none])
    matrix = strongest_emotions(truth, np.stack([happy, sad, sad, happy, happy]))
    assert matrix is not None and (matrix["names"], matrix["total"]) == (EMOTIONS, 3)
    assert matrix["rows"][0][:3] == [(1, 0.5), (1, 0.5), (0, 0.0)]
    assert matrix["rows"][1][:2] == [(0, 0.0), (1, 1.0)]
    assert strongest_emotions(truth[3:], truth[3:]) is None
    html = write_report(run).read_text()
    assert "Confusion matrix" in html and 'style="--fraction:1.00"' in html


def test_scores_that_are_not_numbers_are_dashes_in_tables_and_bars(run: Path) -> None:
    results = json.loads((run / "emotion/results.json").read_text())
    results["tests"]["sentiment"]["variants"]["audio"]["correlation"] = float("nan")
    results["tests"]["sentiment"]["variants"]["audio"]["acc2_pos"] = None
    (run / "emotion/results.json").write_text(json.dumps(results))
    text = read_page(write_report(run).read_text()).text
    assert "nan" not in text.lower() and "0.654" in text


def test_small_pieces_of_the_data() -> None:
    assert in_stream_order(["x", "audio+video", "text", "audio"]) == [
        "audio",
        "text",
        "audio+video",
        "x",
    ]
    assert dict(flatten({"a": {"b": 1, "c": [1, 2]}, "d": "x"})) == {
        "a.b": "1",
        "a.c": "[1, 2]",
        "d": "x",
    }
    assert Score.of(0.5).mean == 0.5 and np.isnan(Score.of({"mean": 1}).low)
    assert strongest({"emotions": [0, 0.5, 2, 0, 0, 0]}) == "anger"
    assert strongest({"emotions": [0] * 6}) == "none"
    assert (strongest({"category": "calm"}), strongest({})) == ("calm", "")
    assert _thin(np.arange(4 * CURVE_POINTS)).tolist() == [1.5 + 4 * i for i in range(CURVE_POINTS)]


def test_the_map_keeps_groups_together_and_is_repeatable() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    vectors = (rng.normal(size=(3, 16))[group] * 4 + rng.normal(size=(60, 16))).astype(np.float32)
    places = flat_map(vectors)
    assert np.array_equal(places, flat_map(vectors))
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert np.mean(group[distance.argmin(axis=1)] == group) > 0.95
    points = Points(
        subset="audio+video",
        vectors=vectors,
        speakers=[f"{HOSTILE}{g}" for g in group],
        sentiment=np.where(group == 0, np.nan, group),
        emotion=[""] * 60,
        splits=["test"],
    )
    drawn = embedding_map(points)
    assert drawn is not None and list(drawn["legends"]) == ["speaker"]
    assert list(drawn["legends"]["speaker"]) == [f"{HOSTILE}{g}" for g in range(3)]
    assert "by strongest emotion" not in drawn["plot"].svg
    assert drawn["plot"].svg.count("<use") == 60 + 40  # by speaker, by known sentiment


def test_too_few_points_make_no_map() -> None:
    few = Points("audio", np.zeros((2, 4), np.float32), ["", ""], np.zeros(2), ["", ""], ["test"])
    assert embedding_map(few) is None and embedding_map(None) is None


def test_a_pre_training_run_by_itself(run: Path) -> None:
    page = read_page(write_report(run / "pretrain").read_text())
    titles = [title for title in TITLES if title.lower().replace(" ", "-") in page.sections]
    assert titles == ["Learning curves", "Speech and speakers", "Weights", "Configuration"]
    assert "missing" not in page.text and "12.3" in page.text
