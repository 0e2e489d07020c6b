"""Encoder folders and runs of strangers: absurd settings are one line and cost no memory."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import write_encoder
from helpers.served import write_regressors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_folder import DATA, EVALUATION

from mmembed.embedder import Embedder
from mmembed.errors import CorruptError, MmembedError
from mmembed.features.text import Vocabulary
from mmembed.studies.demux_predictor import TextPredictor
from mmembed.studies.emotion_predictor import EmotionPredictor
from mmembed.studies.emotion_queries_predictor import QueriesPredictor

HOSTILE = (
    None, True, False, -1, 0, 1, 3, 10**6, 10**12, 2**62, 2**64, -(10**400), 0.5, -0.1, 1.0, 1e308,
    float("nan"), float("inf"), "", "3", "x" * 99_999, "a\nb\x1b[2J", [], [1], [[]], {}, {"a": 1},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hostile")
    write_encoder(made / "encoder", data=[DATA], evaluation=EVALUATION)
    write_regressors(made / "emotion", ["audio"])
    return made


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in nested JSON."""
    if path:
        yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from places(part, (*path, number))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    value = copy.deepcopy(value)
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = new
    return value


def one_line(read: Callable[[], object]) -> str | None:
    """What is wrong, in a line, or None where nothing is; no memory is taken for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
        return None
    except MmembedError as error:
        assert isinstance(error, CorruptError) or error.exit_code in (2, 4, 5)
        assert "\n" not in str(error) and len(str(error)) < 2_000
        return str(error)
    finally:
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True)
@given(data=st.data())
def test_any_value_in_a_config(folder: Path, data: st.DataObject) -> None:
    which, read = data.draw(
        st.sampled_from(
            [
                ("encoder/config.json", lambda: Embedder.from_pretrained(folder / "encoder")),
                ("emotion/run.json", lambda: regressor(folder)),
            ]
        )
    )
    path = folder / which
    good = path.read_text()
    value = json.loads(good)
    where = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(st.sampled_from(HOSTILE))
    try:
        path.write_text(json.dumps(changed(value, where, new)))
        one_line(read)
    finally:
        path.write_text(good)


def regressor(folder: Path) -> EmotionPredictor:
    return EmotionPredictor.from_folder(
        Embedder.from_pretrained(folder / "encoder"), folder / "emotion"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 1 << 20}, "by the configuration it is"),
        ({"audio_layers": 900}, "has no "),
        ({"audio_layers": 10**9}, "at most 1000"),
        ({"vocabulary_size": 1 << 32}, "by the configuration it is"),
        ({"width": 2**64}, "a number of more than 64 bits"),
        ({"width": 33}, "multiple of 2 \\* 2"),
        ({"width": -32}, "at least 1"),
        ({"width": 32.0}, "must be int"),
        ({"num_heads": 0}, "at least 1"),
        ({"num_heads": True}, "True: must be int"),
        ({"conv_size": 4}, "must be odd"),
        ({"dropout": 1.0}, "below 1"),
        ({"dropout": float("nan")}, "finite"),
        ({"dropout": float("inf")}, "finite"),
        ({"dropout": -0.1}, "at least 0"),
        ({"dropout": "0.1"}, "must be float"),
        ({"video_channels": 5}, "by the configuration it is"),
        ({"cross_layers": 0}, "does not know"),
        ({"depth": 3}, "unknown setting encoder.depth"),
        ({"vocabulary_size": 19}, "by the configuration it is"),
    ],
)
def test_sizes_that_cannot_be(folder: Path, settings: dict[str, Any], words: str) -> None:
    path = folder / "encoder" / "config.json"
    good = path.read_text()
    value = json.loads(good)
    value["encoder"] |= settings
    try:
        path.write_text(json.dumps(value))
        with pytest.raises(CorruptError, match=words):
            Embedder.from_pretrained(folder / "encoder")
        one_line(lambda: Embedder.from_pretrained(folder / "encoder"))
    finally:
        path.write_text(good)


def test_files_of_a_wrong_kind(folder: Path, tmp_path: Path) -> None:
    small = Vocabulary.train(["ab"], 20, "char").to_bytes()
    weights = load_file(folder / "encoder" / "model.safetensors")
    name = next(iter(weights))
    cases: dict[str, Callable[[Path], object]] = {
        "has no": lambda f: save_file({}, f / "model.safetensors"),
        "by the configuration it is": lambda f: save_file(
            {**weights, name: weights[name][..., :-1].contiguous()}, f / "model.safetensors"
        ),
        "does not know": lambda f: save_file(
            {**weights, "more\nlines": torch.zeros(1)}, f / "model.safetensors"
        ),
        "holds I32": lambda f: save_file(
            {**weights, name: weights[name].int()}, f / "model.safetensors"
        ),
        "not finite": lambda f: save_file(
            {**weights, name: torch.full_like(weights[name], torch.nan)}, f / "model.safetensors"
        ),
        "pieces, config.json says": lambda f: (f / "vocabulary.model").write_bytes(small),
        "head.bias is": lambda f: (f / "alphabet.model").write_bytes(small),
        "not a sentencepiece": lambda f: (f / "vocabulary.model").write_bytes(b"x" * 99),
        "is not a file": lambda f: pipe(f / "config.json"),
        "weights.* is not a file|safetensors: is not a file": lambda f: pipe(
            f / "model.safetensors"
        ),
        "model: is not a file": lambda f: pipe(f / "vocabulary.model"),
        "larger than 64 MB": lambda f: os.truncate(f / "config.json", 1 << 40),
        "larger than 256 MB": lambda f: os.truncate(f / "vocabulary.model", 1 << 40),
        "not usable weights": lambda f: os.truncate(f / "model.safetensors", 1 << 40),
        "not valid JSON": lambda f: (f / "config.json").write_text("[" * 100_000),
        "not valid JSON ": lambda f: (f / "config.json").write_text('{"encoder": ' + "9" * 9999),
        "holds no JSON object": lambda f: (f / "config.json").write_text("[]"),
        "setting encoder is None": lambda f: (f / "config.json").write_text("{}"),
        "cannot be read": lambda f: (f / "config.json").write_text(
            json.dumps({**json.loads((f / "config.json").read_text()), "data": [{"name": 3}]})
        ),
    }
    for number, (words, damage) in enumerate(cases.items()):
        made = shutil.copytree(folder / "encoder", tmp_path / str(number))
        damage(made)
        with pytest.raises(CorruptError, match=words.strip()):
            Embedder.from_pretrained(made)
        one_line(lambda made=made: Embedder.from_pretrained(made))  # type: ignore[misc]
    (folder / "encoder" / "README.md").unlink()
    assert Embedder.from_pretrained(folder / "encoder").config["version"]  # a card is for people


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_runs_of_strangers(folder: Path, tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained(folder / "encoder")
    readers: list[Callable[[Path], object]] = [
        lambda run: EmotionPredictor.from_folder(embedder, run),
        lambda run: TextPredictor.from_run(run),
        lambda run: QueriesPredictor.from_run(run, folder / "encoder"),
    ]
    texts = [
        "", "[]", "{}", "[" * 100_000, '{"name": "demux", "loop": {"seeds": []}}',
        '{"name": "demux", "loop": {"seeds": [0.5]}, "backbone": 3}', '{"name": "demux"}',
        '{"name": "demux", "backbone": "\\u0000", "variants": ["bce"]}',
        '{"name": "emotion_queries", "method": {"widths": [99999999], "num_heads": 7}}',
        '{"name": "emotion_queries", "loop": {"seeds": []}}',
        '{"name": "emotion_queries", "streams": "smell"}',
        '{"name": "emotion", "method": {"layers": 4294967296, "width": 4294967296}, "loop": {}}',
        '{"name": "emotion", "method": {}, "loop": {"seeds": []}}',
        '{"name": "emotion", "method": {"width": NaN}, "loop": {"seeds": 3}}',
    ]  # fmt: skip
    for text in texts:
        (tmp_path / "run.json").write_text(text)
        (tmp_path / "audio").mkdir(exist_ok=True)
        for read in readers:
            assert one_line(lambda read=read: read(tmp_path)) is not None  # type: ignore[misc]
    run = shutil.copytree(folder / "emotion", tmp_path / "nan")
    weights = load_file(run / "audio" / "seed-1.safetensors")
    save_file(
        {**weights, "mean": weights["mean"] * torch.nan}, run / "audio" / "seed-1.safetensors"
    )
    assert "mean holds values that are not finite" in str(one_line(lambda: readers[0](run)))
