"""Figures of others: as they were published, of the right corpus, apart from what is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.emotional import clip
from helpers.prepared import write_embeddings
from helpers.studied import KEYS, TRUTH, fewer_draws, sentiment, write_run

from mmembed.commands.compare import main as compare
from mmembed.commands.evaluate import main as evaluate
from mmembed.protocols.published import ABOUT, PUBLISHED, published_for


def figure(protocol: str, corpus: str, encoder: str) -> tuple[float | None, float | None]:
    (one,) = published_for([f"{corpus}-1", f"{corpus}-2-3"], protocol)
    return one.figures[encoder]


def test_figures_are_those_of_the_sources() -> None:
    assert figure("emobox", "emodb", "wav2vec 2.0 base") == pytest.approx((0.8314, 0.821))
    assert figure("emobox", "ravdess", "Whisper large v3") == pytest.approx((0.7587, 0.753))
    assert figure("emobox", "emovo", "data2vec base") == (pytest.approx(0.3247), None)
    assert figure("emobox", "crema_d", "HuBERT large") == (pytest.approx(0.7364), None)
    assert figure("maeb", "crema_d", "Whisper base") == (0.481, None)
    assert figure("maeb", "ravdess", "OmniEmbed") == (0.447, None)


def test_where_classes_have_as_many_clips_both_scores_are_one() -> None:
    """EMOVO and URDU; so a figure in the wrong column shows."""
    for corpus in ("emovo", "urdu"):
        (one,) = published_for([f"{corpus}-1"])
        pairs = [(wa, ua) for wa, ua in one.figures.values() if wa is not None and ua is not None]
        assert len(pairs) == 5
        assert all(abs(wa - ua) <= 0.0006 for wa, ua in pairs)
    for one in PUBLISHED:
        assert all(0 < x < 1 for pair in one.figures.values() for x in pair if x is not None)
        assert one.source and one.about == ABOUT[one.corpus]


def test_clips_of_another_corpus_or_of_several_have_none() -> None:
    assert published_for(["clip-1", "clip-2"]) == published_for([]) == []
    assert published_for(["emodb-1", "emovo-1"]) == []
    assert published_for(["emodb-1"], "maeb") == []
    assert {one.protocol for one in published_for(["crema_d-1"])} == {"emobox", "maeb"}


def test_evaluate_prints_them_below_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [replace(clip(number, 2.0), key=f"ravdess-{number}") for number in range(60)]
    folder = write_embeddings(tmp_path / "audio", records, ["audio"])
    evaluate(["maeb", str(folder), "--out", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out.splitlines()
    first = next(n for n, line in enumerate(printed) if line.startswith("published: "))
    assert "chance UAR" in printed[first - 1]
    assert "RAVDESS, 1,440 clips of 8 emotions, audio+video, maeb; MVEB" in printed[first]
    assert all(line.startswith("published: ") for line in printed[first:])
    assert "published: OmniEmbed               accuracy 0.447  UAR     -" in printed
    told = json.loads((tmp_path / "out.json").read_text())
    assert [*told["embeddings"]] == [str(folder)]
    (apart,) = told["published"]
    assert apart["figures"]["OmniEmbed"] == {"accuracy": 0.447, "uar": None}
    evaluate(["honest", str(folder)])
    assert "published" not in capsys.readouterr().out


def test_compare_puts_them_under_a_table_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer_draws(monkeypatch)
    run = write_run(tmp_path / "run", sentiment(), {"exact": np.array([TRUTH], np.float32)})
    compare([str(run), "--published"])
    assert (
        "published: nothing is known here of clips other than crema_d-" in capsys.readouterr().out
    )
    monkeypatch.setattr("helpers.studied.KEYS", [f"urdu-{key}" for key in KEYS])
    run = write_run(tmp_path / "urdu", sentiment(), {"exact": np.array([TRUTH], np.float32)})
    compare([str(run)])
    assert "published" not in capsys.readouterr().out
    page = tmp_path / "page.html"
    compare([str(run), "--published", "--out", str(page)])
    line = "published: HuBERT base             accuracy 0.884  UAR 0.884"
    assert f"  {line}\n" in capsys.readouterr().out
    assert line in page.read_text()
