"""Runs side by side: differences by hand and against loops, what is compared with what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.studied import DRAWS, GROUPS, KEYS, TRUTH, fewer_draws, sentiment, write_run

from mmembed.errors import CorruptError, UsageError
from mmembed.studies.compare import Comparison, Row, compare
from mmembed.studies.finished_runs import FinishedRun, read_runs
from mmembed.studies.scoring import Array, TestSet

RANDOM = np.random.default_rng(1)
OURS = RANDOM.normal(size=(2, 12)).astype(np.float32)
THEIRS = RANDOM.normal(size=(3, 12)).astype(np.float32)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_draws(monkeypatch)


def rows(table: Comparison) -> dict[str, Row]:
    return {line.name: line for line in table.rows}


def absolute(answers: Array, row: int) -> float:
    """Mean over seeds of the error of one item; as the measure is a mean, so is its mean."""
    return float(np.mean([abs(seed[row] - TRUTH[row]) for seed in answers]))


def test_differences_against_a_double_loop(tmp_path: Path) -> None:
    runs = read_runs(
        [
            write_run(tmp_path / "a", sentiment(), {"ours": OURS}),
            write_run(tmp_path / "b", sentiment(), {"theirs": THEIRS}),
        ]
    )
    (table,) = compare(runs)
    assert table.reference == "a: ours" and table.notes == ()
    line = rows(table)["b: theirs"]

    generator, gaps = np.random.default_rng(0), []
    for _ in range(DRAWS):
        picked = []
        for group in generator.integers(6, size=6):
            picked += [row for row in range(12) if GROUPS[row] == "abcdef"[group]]
        gaps.append(
            sum(absolute(THEIRS, row) for row in picked) / 12
            - sum(absolute(OURS, row) for row in picked) / 12
        )
    gap = line.difference
    assert gap is not None
    assert gap["mean"] == pytest.approx(
        np.mean([absolute(THEIRS, r) - absolute(OURS, r) for r in range(12)]), abs=1e-6
    )
    assert (gap["low"], gap["high"]) == pytest.approx(
        tuple(np.quantile(gaps, (0.025, 0.975))), abs=1e-6
    )
    below, above = sum(g <= 0 for g in gaps), sum(g >= 0 for g in gaps)
    assert 0 < gap["p"] < 1 and gap["p"] == pytest.approx(2 * (min(below, above) + 1) / (DRAWS + 1))
    # A row's own interval is the one that its run has written.
    written = runs[1].results["tests"]["test"]["variants"]["theirs"]["mae"]
    assert line.scores["mae"] == pytest.approx(written)


def test_p_by_hand(tmp_path: Path) -> None:
    """Off by 1 in every item: the same difference in every draw. The same answers: none in any."""
    truth = np.array(TRUTH, np.float32)
    variants = {"exact": truth[None], "off": truth[None] + 1, "again": truth[None].copy()}
    (table,) = compare(read_runs([write_run(tmp_path / "run", sentiment(), variants)]))
    assert list(rows(table)) == ["exact", "off", "again", "constant"]  # one run: no prefix
    assert table.reference == "exact" and rows(table)["exact"].difference is None
    off, again = rows(table)["off"].difference, rows(table)["again"].difference
    assert off is not None and again is not None
    assert (off["mean"], off["low"], off["high"]) == pytest.approx((1, 1, 1))
    assert off["p"] == pytest.approx(2 / (DRAWS + 1))
    assert (again["mean"], again["low"], again["high"], again["p"]) == (0, 0, 0, 1)


def test_another_reference_and_measure(tmp_path: Path) -> None:
    variants = {"ours": OURS, "theirs": THEIRS}
    plain = {"ridge": RANDOM.normal(size=12).astype(np.float32)}
    runs = read_runs([write_run(tmp_path / "run", sentiment(), variants, plain)])
    (table,) = compare(runs)
    (turned,) = compare(runs, reference="theirs")
    one, other = rows(table)["theirs"].difference, rows(turned)["ours"].difference
    assert one is not None and other is not None
    assert (other["mean"], other["low"], other["high"]) == pytest.approx(
        (-one["mean"], -one["high"], -one["low"])
    )
    assert rows(compare(runs, reference="ridge")[0])["ridge"].difference is None

    # Of the constant baseline, the one that suits the deciding metric alone is stored.
    constant = rows(table)["constant"]
    assert constant.difference is not None and "low" in constant.scores["mae"]
    (table,) = compare(runs, metric="acc2_pos")
    constant = rows(table)["constant"]
    assert table.metric == "acc2_pos" and "mae" in table.others
    assert constant.difference is None and constant.scores["acc2_pos"] == {"mean": 0.5}
    with pytest.raises(
        UsageError, match="no row 'constant' to compare with; there are ours, theirs"
    ):
        compare(runs, metric="acc2_pos", reference="constant")


def test_another_order_changes_nothing(tmp_path: Path) -> None:
    order = [4, 0, 5, 2, 1, 3, 11, 6, 8, 7, 10, 9]
    first = write_run(tmp_path / "a", sentiment(), {"m": OURS})
    plain = write_run(tmp_path / "b", sentiment(), {"m": THEIRS})
    mixed = write_run(tmp_path / "c/b", sentiment(order), {"m": THEIRS[:, order]})
    (table,), (same,) = compare(read_runs([first, plain])), compare(read_runs([first, mixed]))
    assert rows(table)["b: m"].difference == pytest.approx(
        rows(same)["b: m"].difference,  # type: ignore[arg-type]
        abs=1e-6,
    )
    assert rows(same)["b: m"].scores["mae"] == pytest.approx(rows(table)["b: m"].scores["mae"])


def classes(names: tuple[str, ...] = ("x", "y")) -> TestSet:
    truth = np.array([0, 1, 0, 1, 1, 0] * 2)
    return TestSet("classes", "uar", KEYS, GROUPS, truth, truth, names)


LOGITS = RANDOM.normal(size=(1, 12, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (sentiment(), sentiment(range(4)), "different items (4, 4 of them among these)"),
        (sentiment(range(4)), sentiment(), "different items (12, 4 of them among these)"),
        (sentiment(), sentiment(truth=[2, *TRUTH[1:]]), "the same items with another truth"),
        (sentiment(), classes(), "another task (classes)"),
        (classes(), classes(("y", "x")), "other classes"),
    ],
)
def test_other_tests_have_tables_of_their_own(
    tmp_path: Path, first: TestSet, second: TestSet, why: str
) -> None:
    def write(name: str, held: TestSet) -> Path:
        wide = LOGITS if held.task == "classes" else OURS
        return write_run(tmp_path / name, held, {"m": wide[:, : len(held.keys)]})

    tables = compare(read_runs([write("a", first), write("b", second)]))
    assert [table.title for table in tables] == ["test (a)", "test (b)"]
    assert tables[0].notes[0] == f"not compared with 'test' of b: {why}"
    assert [list(rows(t)) for t in tables] == [["a: m", "a: constant"], ["b: m", "b: constant"]]
    # The reference is in one of them; the other says that it has another.
    tables = compare(read_runs([tmp_path / "a", tmp_path / "b"]), reference="b: m")
    assert tables[0].reference == "a: m" and tables[1].reference == "b: m"
    assert "b: m has no predictions here: differences are to a: m" in tables[0].notes


def test_keys_that_occur_twice_are_no_key(tmp_path: Path) -> None:
    one = TestSet(**{**vars(sentiment()), "keys": ("a", "a", *KEYS[2:])})
    other = TestSet(**{**vars(one), "keys": (KEYS[2], "a", "a", *KEYS[3:])})
    for name, held in {"a": one, "b": one, "c": other}.items():
        write_run(tmp_path / name, held, {"m": OURS})
    tables = compare(read_runs([tmp_path / name for name in "abc"]))
    assert len(tables) == 2
    assert tables[0].notes == (
        "not compared with 'test' of c: keys that occur twice, in another order",
    )


def test_tests_of_other_names(tmp_path: Path) -> None:
    """The same items under another name are compared, unless it is not clear with which."""
    a = write_run(tmp_path / "a", sentiment(), {"m": OURS}, test="mosi")
    b = write_run(tmp_path / "b", sentiment(), {"m": THEIRS}, test="test")
    (table,) = compare(read_runs([a, b]))
    assert table.title == "mosi / test" and list(rows(table))[:2] == ["a: m", "b: m"]
    with pytest.raises(UsageError, match="no test 'sims'; there are mosi, test"):
        compare(read_runs([a, b]), test="sims")
    (table,) = compare(read_runs([a, b]), test="test")
    assert table.title == "test" and "b: m" in rows(table)


def test_controls_and_baselines(tmp_path: Path) -> None:
    plain = {"ridge": RANDOM.normal(size=12).astype(np.float32)}
    controls = {"untrained": (sentiment(), {"m": THEIRS})}
    a = write_run(tmp_path / "a", sentiment(), {"m": OURS}, plain, controls)
    (table,) = compare(read_runs([a]))
    assert [(line.name, line.part) for line in table.rows] == [
        ("m", "variant"),
        ("untrained, m", "control"),
        ("ridge", "baseline"),
        ("constant", "baseline"),
    ]
    plain = {"ridge": -plain["ridge"]}  # another one, and the same constant one
    b = write_run(tmp_path / "b", sentiment(), {"m": THEIRS}, plain)
    (table,) = compare(read_runs([a, b]))
    assert list(rows(table)) == [
        *("a: m", "b: m", "a: untrained, m"),
        *("a: ridge", "a: untrained, ridge", "b: ridge", "constant"),
    ]


def test_other_groups_are_told(tmp_path: Path) -> None:
    renamed = TestSet(**{**vars(sentiment()), "groups": tuple("uuvvwwxxyyzz")})
    merged = TestSet(
        **{**vars(sentiment()), "groups": tuple("uuvvwwxxyzyz"), "grouping": "dialogue"}
    )
    for name, held in {"a": sentiment(), "b": renamed, "c": merged}.items():
        write_run(tmp_path / name, held, {"m": OURS})
    (table,) = compare(read_runs([tmp_path / name for name in "abc"]))
    told = "groups are those of a (speakers); c has others (dialogues)"
    assert table.notes == (told,)
    called = TestSet(**{**vars(sentiment()), "grouping": "dialogue"})
    write_run(tmp_path / "d", called, {"m": OURS})
    (table,) = compare(read_runs([tmp_path / name for name in "ad"]))
    told = "groups are the speakers of a; d calls the same ones dialogues"
    assert table.notes == (told,)


def test_folders_of_one_name_keep_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / part / "run" for part in "ab"]
    for path in paths:
        write_run(path, sentiment(), {"m": OURS})
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]
    with pytest.raises(UsageError, match="named twice"):
        read_runs([paths[0], paths[0]])


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sentiment(), {"m": OURS})
    with pytest.raises(UsageError, match="no such folder"):
        FinishedRun.read(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        FinishedRun.read(tmp_path)
    results = json.loads((run / "results.json").read_text())
    results["tests"]["test"]["variants"] = {}
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(CorruptError, match=r"predictions of m on test test, and no scores"):
        compare(read_runs([run]))
    (run / "results.json").write_text('{"wer": 0.5}')
    with pytest.raises(UsageError, match="has no tests"):
        FinishedRun.read(run)
    (run / "results.json").write_text('{"tests": ')
    with pytest.raises(CorruptError, match="not valid JSON"):
        FinishedRun.read(run)
    (run / "results.json").unlink()
    with pytest.raises(UsageError, match=r"no results\.json; if `finetune` was stopped, run it"):
        FinishedRun.read(run)


def grouped(groups: str, grouping: str = "speaker") -> TestSet:
    return TestSet(**{**vars(sentiment()), "groups": tuple(groups), "grouping": grouping})


@pytest.mark.parametrize(("groups", "told"), [("a" * 12, "1 speaker"), ("abcde" * 2 + "aa", "5 s")])
def test_too_few_groups_have_neither_interval_nor_p(tmp_path: Path, groups: str, told: str) -> None:
    """As of CMU-MOSEI's clips, which had one group, an interval without width and p = .002."""
    truth = np.array(TRUTH, np.float32)[None]
    write_run(tmp_path / "run", grouped(groups), {"exact": truth, "off": truth + 1})
    (table,) = compare(read_runs([tmp_path / "run"]))
    gap = rows(table)["off"].difference
    assert gap == {"mean": pytest.approx(1)}
    assert all("low" not in line.scores["mae"] for line in table.rows)
    assert table.notes[-1].startswith(f"no interval: {told}")
    assert table.notes[-1].endswith(", 6 are needed")


def test_runs_of_older_versions_are_read(tmp_path: Path) -> None:
    """The oldest name no grouping, have no counts and intervals of one group; NaN where null is."""
    folder = write_run(tmp_path / "run", grouped("a" * 12), {"m": OURS})
    results = json.loads((folder / "results.json").read_text())
    test = results["tests"]["test"]
    for name in ("counts", "groups", "grouping", "notes"):
        del test[name]
    for figure in test["variants"]["m"].values():
        figure.pop("note", None)
        figure |= {"low": 0.5, "high": 0.5}
    test["variants"]["m"]["acc2_pos"] |= {"mean": float("nan"), "std": float("nan")}
    (folder / "results.json").write_text(json.dumps(results))
    (table,) = compare(read_runs([folder]))
    line = rows(table)["m"]
    assert not any("low" in line.scores[measure] for measure in ("mae", "correlation"))
    (table,) = compare(read_runs([folder]), metric="acc2_pos")
    assert rows(table)["m"].difference is None


def test_fields_of_older_versions_are_read() -> None:
    """Written by an earlier version: "measure" and "trivial" for "metric" and "constant"."""
    folder = Path(__file__).parent / "old_run"
    assert '"measure"' in (folder / "results.json").read_text()
    (run,) = read_runs([folder])
    (table,) = compare([run])
    assert list(rows(table)) == ["ours", "more", "untrained, ours", "ridge", "constant"]
    test = run.tests["test"]
    assert test["metric"] == table.metric == "mae"
    assert rows(table)["constant"].scores["mae"]["mean"] == test["constant"]["mae"]
    assert rows(table)["constant"].difference is not None  # its predictions were found


def test_groups_that_a_metric_does_not_count_are_no_groups(tmp_path: Path) -> None:
    """Sentiment 0 is not among what acc2_pos counts."""
    truth = np.zeros(12, np.float32)
    truth[:7] = [1, -1, 1, 1, -1, 1, 2]
    held = TestSet(**{**vars(sentiment(metric="acc2_pos")), "truth": truth})
    alone = TestSet(**{**vars(held), "groups": tuple("abcdefghijkl")})
    write_run(tmp_path / "run", alone, {"m": OURS, "n": OURS[::-1].copy()})
    (table,) = compare(read_runs([tmp_path / "run"]))
    assert "low" in rows(table)["m"].scores["acc2_pos"] and table.notes == ()
    spread = TestSet(**{**vars(held), "truth": np.where(np.arange(12) < 2, truth, 0)})
    write_run(tmp_path / "few", spread, {"m": OURS})
    (table,) = compare(read_runs([tmp_path / "few"]))
    assert table.notes == ("no interval: 1 speaker, 6 are needed",)
