"""`mmembed export`: programs that run without mmembed and say what the encoder says."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.encoders import write_on_pretrained
from helpers.support import random_item, small_encoder_config, with_padding
from helpers.tiny_backbones import write_tiny
from mmembed_export.model import main
from torch import Tensor

from mmembed.commands.cli import run_program
from mmembed.data.item import collate
from mmembed.embedder import Embedder, save_encoder
from mmembed.embedder.programs import CHECKED, TRACED
from mmembed.encoder import Encoder
from mmembed.features.text import Vocabulary
from mmembed.streams import parse_subset, stream_subsets, subset_name

ROOT = Path(__file__).parents[2]
SUBSETS = [subset_name(subset) for subset in stream_subsets()]
OUTPUTS = ["pooled", "frames", "frame_lengths", "layers"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that has learned nothing."""
    vocabulary = Vocabulary.train(["red on blue", "lay white at nine"], 20, "char")
    torch.manual_seed(0)
    config = dataclasses.replace(
        small_encoder_config(), vocabulary_size=len(vocabulary), audio_layers=1
    )
    path = tmp_path_factory.mktemp("export") / "encoder"
    save_encoder(path, Encoder(config), vocabulary, {"name": "made"})
    return path


TOLERANCE = 1e-4  # the command's own: two libraries add up in their own ways


def agree(run, folder: Path, subset: str) -> None:
    """On batches of sizes and lengths that the command has not seen, NaN in the padding."""
    encoder = Embedder.from_pretrained(folder).encoder
    for seeds, extra in (([1], 1), ([6, 0, 3, 2, 5, 4, 1], 5)):
        assert len(seeds) not in {TRACED[0], *(size for size, _ in CHECKED[2:])}
        items = [random_item(parse_subset(subset), seed) for seed in seeds]
        batch = with_padding(collate(items), extra, float("nan"))
        inputs = {stream: batch.inputs[stream] for stream in parse_subset(subset)}
        inputs |= {
            s: dataclasses.replace(x, values=x.values % 9) for s, x in inputs.items() if s == "text"
        }
        expected = encoder(inputs)
        named: dict[str, Tensor] = {stream: padded.values for stream, padded in inputs.items()}
        named |= {f"{stream}_lengths": padded.lengths for stream, padded in inputs.items()}
        found: Mapping[str, Tensor] = run(named)
        longest = expected.frames.values.shape[1]
        assert torch.equal(found["frame_lengths"], expected.frames.lengths)
        for left, right in (
            (found["pooled"], expected.pooled),
            (found["layers"], expected.layers),
            (found["frames"][:, :longest], expected.frames.values),
        ):
            torch.testing.assert_close(left, right, rtol=0, atol=TOLERANCE)


def tells_no_paths(path: Path) -> None:
    """Exporters note where in which file of this machine each step was written."""
    assert str(ROOT).encode() not in path.read_bytes()
    assert b"traceable.py" not in path.read_bytes()


def check_metadata(found: Mapping[str, Any], folder: Path, subset: str) -> None:
    embedder = Embedder.from_pretrained(folder)
    assert found["encoder_sha256"] == embedder.sha256
    assert found["version"] == embedder.description["version"]
    assert found["streams"] == subset.split("+")
    assert list(found["outputs"]) == OUTPUTS
    for stream in subset.split("+"):
        assert found["inputs"][stream]["shape"][:2] == ["batch", f"{stream}_steps"]
        assert found["inputs"][stream]["made_by"].startswith("mmembed.features.")
        assert found["inputs"][f"{stream}_lengths"]["dtype"] == "int64"


def some(*quick: str) -> list[Any]:
    """All subsets; those that are not named take long."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.long) for name in SUBSETS]


@pytest.mark.slow
@pytest.mark.parametrize("subset", some())
def test_torch_export_of_every_subset(folder: Path, tmp_path: Path, subset: str) -> None:
    arguments = [str(folder), "--format", "torch-export", "--out", str(tmp_path / "encoder.pt2")]
    main([*arguments, "--streams", subset])
    (path,) = tmp_path.iterdir()
    assert path.name == f"encoder.{subset}.pt2"
    tells_no_paths(path)
    about, run = loaded(path, "torch-export")
    agree(run, folder, subset)
    check_metadata(about, folder, subset)


@pytest.mark.long
def test_without_streams_every_subset_is_exported(folder: Path, tmp_path: Path) -> None:
    main([str(folder), "--format", "torch-export", "--out", str(tmp_path / "encoder.pt2")])
    assert {path.name for path in tmp_path.iterdir()} == {f"encoder.{n}.pt2" for n in SUBSETS}


@pytest.mark.parametrize("subset", some("text"))
def test_onnx_of_every_subset(folder: Path, tmp_path: Path, subset: str) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    arguments = [str(folder), "--format", "onnx", "--out", str(tmp_path / "encoder.onnx")]
    main([*arguments, "--streams", subset])
    (path,) = tmp_path.iterdir()
    assert path.name == f"encoder.{subset}.onnx"
    tells_no_paths(path)
    about, run = loaded(path, "onnx")
    agree(run, folder, subset)
    check_metadata(about, folder, subset)
    model = onnx.load(path)
    axes = [
        [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
        for x in model.graph.input
    ]
    assert axes[0][:2] == ["batch", f"{subset.split('+')[0]}_steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "form"),
    [
        *(
            pytest.param(("whisper", *kinds), form, marks=pytest.mark.long)
            for *kinds, form in (
                ("vit", "bert", "onnx"),
                ("vit", "bert", "torch-export"),
                ("dinov2", "distilbert", "onnx"),
                ("dinov2_with_registers", "roberta", "onnx"),
                ("clip", "mpnet", "onnx"),
                ("siglip", "xlm-roberta", "onnx"),
            )
        ),
    ],
)
def test_pretrained_front_ends(kinds: tuple[str, ...], form: str, tmp_path: Path, capsys) -> None:
    """The command compares with the encoder; here, that the file's own description is enough."""
    pytest.importorskip("transformers")
    made = write_on_pretrained(tmp_path / "made", *kinds)
    out = tmp_path / "out" / "e.program"
    main([str(made), "--format", form, "--out", str(out), "--streams", SUBSETS[-1]])
    (path,) = out.parent.iterdir()
    assert "differs from the encoder by" in capsys.readouterr().out
    tells_no_paths(path)
    about, run = loaded(path, form)
    inputs = {}
    for name, told in about["inputs"].items():
        shape = [{"batch": 2}.get(n, 6) if isinstance(n, str) else n for n in told["shape"]]
        inputs[name] = torch.ones(shape, dtype=getattr(torch, told["dtype"]))
    results = run(inputs)
    for name in ("pooled", "layers"):
        assert list(results[name].shape[1:]) == about["outputs"][name]["shape"][1:]
        assert results[name].isfinite().all()
    assert about["inputs"]["audio"]["made_by"].startswith("mmembed.backbones.whisper.log_mel ")
    assert about["inputs"]["audio_lengths"]["range"].endswith("at most 3000")
    assert about["inputs"]["video"]["shape"][2:] in ([32, 32, 3], [256, 256, 3])


def loaded(path: Path, form: str) -> tuple[dict[str, Any], Callable[..., Mapping[str, Tensor]]]:
    """What a file says of itself, and the program in it."""
    if form == "torch-export":
        metadata = {"mmembed.json": ""}
        program = torch.export.load(io.BytesIO(path.read_bytes()), extra_files=metadata).module()
        return json.loads(metadata["mmembed.json"]), program
    session = pytest.importorskip("onnxruntime").InferenceSession(path)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(OUTPUTS, {name: value.numpy() for name, value in inputs.items()})
        return dict(zip(OUTPUTS, map(torch.from_numpy, found), strict=True))

    return json.loads(session.get_modelmeta().custom_metadata_map["mmembed"]), run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "form"),
    [
        pytest.param(("audio=whisper", "text=bert"), "onnx", marks=pytest.mark.long),
        (("whisper",), "torch-export"),
    ],
)
def test_public_encoders(names: tuple[str, ...], form: str, tmp_path: Path, monkeypatch) -> None:
    """As they are, without training: the command compares them with what `mmembed extract` runs."""
    pytest.importorskip("transformers")
    for name in names:
        write_tiny(tmp_path / name.split("=")[-1], name.split("=")[-1])
    monkeypatch.chdir(tmp_path)
    main([*names, "--format", form, "--out", "out/e.program"])
    found = {path.name for path in (tmp_path / "out").iterdir()}
    streams = ["audio", "text", "audio+text"] if len(names) > 1 else ["audio"]
    assert found == {f"e.{name}.program" for name in streams}
    about, _ = loaded(tmp_path / "out" / f"e.{streams[-1]}.program", form)
    assert about["outputs"]["frames"]["steps_per_second"] == (25 if len(names) > 1 else 50)
    assert run_program(main, [*names, "--format", form, "--out", "e", "--streams", "video"]) == 2


def test_a_front_end_that_cannot_be_exported_is_named(tmp_path: Path, capsys) -> None:
    pytest.importorskip("transformers")
    made = write_on_pretrained(tmp_path / "made", "wavlm", "vit", "bert")
    arguments = [str(made), "--format", "torch-export", "--out", str(tmp_path / "out" / "e.pt2")]
    assert run_program(main, arguments) == 2
    told = capsys.readouterr().err
    assert "wavlm: cannot be exported, because padding of a clip would change its layers" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_differs_too_much_is_not_written(folder: Path, tmp_path: Path, capsys) -> None:
    arguments = [str(folder), "--format", "torch-export", "--out", str(tmp_path / "e.pt2")]
    assert run_program(main, [*arguments, "--streams", "text", "--tolerance", "0"]) == 5
    assert "e.text.pt2: not written, it differs from the encoder by" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nan_is_no_agreement(folder: Path, tmp_path: Path, capsys) -> None:
    """A program whose numbers are not numbers is not written, whatever the tolerance."""
    embedder = Embedder.from_pretrained(folder)
    embedder.encoder.fusion.fill_(float("nan"))
    broken = tmp_path / "broken"
    save_encoder(broken, embedder.encoder, embedder.subwords, {})
    arguments = [str(broken), "--format", "torch-export", "--out", str(tmp_path / "out" / "e.pt2")]
    assert run_program(main, [*arguments, "--streams", "text", "--tolerance", "inf"]) == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (["--format", "pickle"], 2, "torch-export"),
        (["--streams", "smell"], 2, "--streams: streams ['smell']"),
        (["nowhere"], 2, "nowhere: there is no such folder"),
    ],
)
def test_usage(
    folder: Path, tmp_path: Path, change: list[str], code: int, told: str, capsys
) -> None:
    arguments = [str(folder), "--format", "torch-export", "--out", str(tmp_path / "e.pt2")]
    arguments = [*change, *arguments[1:]] if change == ["nowhere"] else [*arguments, *change]
    try:
        found = run_program(main, arguments)
    except SystemExit as stopped:  # tyro's own
        found = int(stopped.code or 0)
    assert found == code
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
