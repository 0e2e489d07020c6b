"""A folder of clips, and extract.py to run in it: imported once for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.clips import grey_steps, tone, write_video
from helpers.encoders import write_encoder
from helpers.extracting import PROGRAM, WORDS, Extract
from helpers.forker import Forker
from helpers.prepared import example, write_prepared

from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    made = Forker(PROGRAM, "mmembed.embeddings.extract")
    yield made
    made.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/, rows.jsonl, prepared shards of 30 examples, an encoder that has learned nothing."""
    folder = tmp_path_factory.mktemp("here")
    write_encoder(folder / "encoder")
    clips = folder / "clips"
    (clips / "deep").mkdir(parents=True)
    grey, times = grey_steps(range(30, 130, 4)), np.arange(25) / 25
    write_video(clips / "a.mp4", grey, times, tone(1.0))
    write_video(clips / "deep" / "b.mp4", grey[:20], times[:20])
    soundfile.write(clips / "c[1].wav", tone(0.7), 16_000)
    rows = [
        Utterance("said", "clips/a.mp4", transcript=WORDS[0], speaker="s1", split="test"),
        Utterance("unknown", "clips/a.mp4", start=0.2, speaker="s2", split="test"),
        Utterance("written", None, transcript=WORDS[1], split="train"),
        Utterance("long", "clips/c[1].wav", transcript=" ".join(WORDS * 9)),
    ]
    write_manifest(folder / "rows.jsonl", rows)
    spoken = [example(n, transcript=WORDS[n % 2], text=WORDS[n % 2]) for n in range(30)]
    write_prepared(folder / "corpus", spoken, size=15)
    return folder


@pytest.fixture(scope="module")
def extract(forker: Forker, here: Path) -> Extract:
    """Run it in `here`: exit code and all it said."""

    def run(*words: object, **request: Any) -> tuple[int, str]:
        argv = [*map(str, words), "--encoder", "encoder"]
        (answer,) = forker(argv, cwd=str(here), **request)
        return answer

    return run
