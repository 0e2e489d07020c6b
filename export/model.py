"""Write a frozen encoder as programs that run without mmembed.

Examples:
    mmembed export runs/tiny/encoder --format onnx --out exported/encoder.onnx
    mmembed export runs/tiny/encoder --format torch-export --out encoder.pt2 --streams audio+video

There is one file for each stream subset, named after it: encoder.audio+video.onnx. Inputs are
features, padded to any length, and their lengths. The file itself describes them: in ONNX under
"mmembed" in the metadata of the model, in the format of torch.export as the extra file
"mmembed.json". Each program is run on batches of other sizes than it was made with, and is written
only if it agrees with the encoder.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
import tyro
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmembed.batch import Padded, parse_subset, stream_subsets, subset_name
from mmembed.commands.cli import leave, run_program
from mmembed.embedder import Embedder
from mmembed.encoder import FRAME_RATE, Encoder
from mmembed.errors import CorruptError, UsageError
from mmembed.features.audio import FEATURE_RATE, MEL_BANDS
from mmembed.features.video import CROP, VIDEO_RATE
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.traceable import OUTPUTS, TraceableEncoder, lengths_name

METADATA: Final = "mmembed"
TRACED: Final = (2, 30)  # items, and steps of the longest, of the batch that is traced
CHECKED: Final = ((1, 1), (1, 103), (5, 64), (3, 230))  # likewise, of those that are compared

INPUTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "audio": {
        "shape": ["batch", "audio_steps", MEL_BANDS],
        "dtype": "float32",
        "steps_per_second": FEATURE_RATE,
        "made_by": "mmembed.features.audio.log_mel: log-mel power of 16-bit mono sound at 16 kHz",
    },
    "video": {
        "shape": ["batch", "video_steps", CROP, CROP],
        "dtype": "uint8",
        "steps_per_second": VIDEO_RATE,
        "made_by": "mmembed.features.video.face_crops: grey face crops of the speaker",
    },
    "text": {
        "shape": ["batch", "text_steps"],
        "dtype": "int64",
        "made_by": "mmembed.features.text.Vocabulary.encode, with vocabulary.model of the encoder "
        "folder",
    },
}

Inputs: TypeAlias = dict[str, Tensor]
Run: TypeAlias = Callable[[Inputs], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Export:
    """What to write and how.

    Attributes:
        model: Folder of the frozen encoder.
        format: Format of the programs. "onnx" needs the extra `onnx`.
        out: File to write. The stream subset is inserted before its suffix.
        streams: Stream subsets such as "audio+video"; "every" means each of the seven subsets.
        tolerance: Largest allowed difference from the encoder in pooled, frames and layers,
            relative for numbers above 1.
    """

    model: tyro.conf.Positional[Path]
    format: Literal["torch-export", "onnx"]
    out: Path
    streams: tuple[str, ...] = ("every",)
    tolerance: float = 1e-4


def main(argv: Sequence[str] | None = None) -> None:
    """Load; then for each subset export, compare, write."""
    settings = tyro.cli(Export, prog="mmembed export", args=argv, description=__doc__)
    subsets = _subsets(settings.streams)
    if settings.format == "onnx":
        _check_onnx()
    embedder = Embedder.from_pretrained(settings.model)
    encoder = embedder.encoder
    if not isinstance(encoder, Encoder) or encoder.backbones:
        raise UsageError(
            f"{settings.model}: holds pretrained encoders of transformers; export these by its own "
            "means (optimum), this command writes encoders whose front ends are ours"
        )
    export, load = FORMATS[settings.format]
    for subset in subsets:
        name = subset_name(subset)
        path = settings.out.with_name(f"{settings.out.stem}.{name}{settings.out.suffix}")
        with _quiet(), torch.no_grad():
            program = trace(encoder, subset)
            data = export(program, subset, dumps(describe(embedder, subset), indent=1))
            difference = largest_difference(load(data), encoder, subset)
        print(f"{path}: differs from the encoder by {difference:.1e} at most", flush=True)
        if not difference <= settings.tolerance:
            raise CorruptError(
                f"{path}: not written, it differs from the encoder by {difference:.1e}, more than "
                f"--tolerance {settings.tolerance}"
            )
        with atomic_file(path) as file:
            file.write(data)


def describe(embedder: Embedder, subset: Sequence[str]) -> dict[str, Any]:
    """What a user of the file has to know: inputs, outputs, and where it comes from."""
    width, layers = embedder.encoder.frame_width, len(embedder.encoder.layer_names)
    lengths = {"shape": ["batch"], "dtype": "int64", "range": "from 1 to the stream's steps"}
    return {
        **embedder.description,
        "streams": list(subset),
        "inputs": {
            name: value
            for stream in subset
            for name, value in ((stream, INPUTS[stream]), (lengths_name(stream), lengths))
        },
        "outputs": {
            "pooled": {"shape": ["batch", 2 * width], "dtype": "float32"},
            "frames": {
                "shape": ["batch", "frames", width],
                "dtype": "float32",
                "steps_per_second": FRAME_RATE,
                "padding": "zeros from frame_lengths on",
            },
            "frame_lengths": {"shape": ["batch"], "dtype": "int64"},
            "layers": {"shape": ["batch", layers, 2 * width], "dtype": "float32"},
        },
    }


def trace(encoder: Encoder, subset: Sequence[str]) -> ExportedProgram:
    """The encoder for a stream subset, for batches of any size and length."""
    named = _axes(subset)
    axes = {axis: Dim(axis) for places in named.values() for axis in places.values()}
    shapes = {name: {n: axes[axis] for n, axis in places.items()} for name, places in named.items()}
    example = random_inputs(encoder, subset, *TRACED)
    wrapped = TraceableEncoder(encoder, subset).eval()
    program = torch.export.export(wrapped, (example,), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # places in files of this machine
    return program


def random_inputs(encoder: Encoder, subset: Sequence[str], size: int, longest: int) -> Inputs:
    """A batch of noise, the first item of which is the longest."""
    generator = torch.Generator().manual_seed(size * longest)
    values_of = {"video": 256, "text": encoder.config.vocabulary_size}
    inputs: Inputs = {}
    for number, stream in enumerate(subset):
        steps = longest + number  # no two streams alike
        shape = (size, steps, *INPUTS[stream]["shape"][2:])
        if stream == "audio":
            inputs[stream] = torch.randn(shape, generator=generator)
        else:
            drawn = torch.randint(values_of[stream], shape, generator=generator)
            inputs[stream] = drawn.to(getattr(torch, INPUTS[stream]["dtype"]))
        lengths = torch.randint(1, steps + 1, (size,), generator=generator)
        lengths[0] = steps
        inputs[lengths_name(stream)] = lengths
    return inputs


def largest_difference(run: Run, encoder: Encoder, subset: Sequence[str]) -> float:
    """Between a program and the encoder, over batches it was not made with.

    Returns:
        The largest difference in pooled, frames and layers, relative to numbers above 1; NaN if one
        of them is, or if the lengths differ.
    """
    largest = torch.zeros(())
    for size, longest in CHECKED:
        inputs = random_inputs(encoder, subset, size, longest)
        found = run(inputs)
        expected = encoder({s: Padded(inputs[s], inputs[lengths_name(s)]) for s in subset})
        if not torch.equal(found["frame_lengths"], expected.frames.lengths):
            return float("nan")
        frames = Padded(found["frames"], found["frame_lengths"]).pack().values
        for left, right in (
            (found["pooled"], expected.pooled),
            (found["layers"], expected.layers),
            (frames, expected.frames.pack().values),
        ):
            difference = (left - right).abs() / right.abs().clamp(min=1)
            largest = torch.maximum(largest, difference.max())  # passes NaN on
    return float(largest)


def to_torch_export(program: ExportedProgram, subset: Sequence[str], metadata: str) -> bytes:
    """The file's bytes."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={f"{METADATA}.json": metadata})
    return file.getvalue()


def run_torch_export(data: bytes) -> Run:
    """The program in a file's bytes, as a function."""
    run: Run = torch.export.load(io.BytesIO(data)).module()
    return run


def to_onnx(program: ExportedProgram, subset: Sequence[str], metadata: str) -> bytes:
    """The file's bytes."""
    named = _axes(subset)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        input_names=list(named),
        output_names=list(OUTPUTS),
        dynamic_shapes=(named,),
    )
    assert exported is not None
    exported.model.metadata_props[METADATA] = metadata
    data: bytes = exported.model_proto.SerializeToString()
    return data


def run_onnx(data: bytes) -> Run:
    """The program in a file's bytes, as a function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> dict[str, Tensor]:
        found = session.run(list(OUTPUTS), {name: x.numpy() for name, x in inputs.items()})
        return dict(zip(OUTPUTS, map(torch.from_numpy, found), strict=True))

    return run


FORMATS: Final = {
    "torch-export": (to_torch_export, run_torch_export),
    "onnx": (to_onnx, run_onnx),
}


def _axes(subset: Sequence[str]) -> dict[str, dict[int, str]]:
    """Input -> place -> name of each axis that may be of any size."""
    axes: dict[str, dict[int, str]] = {}
    for stream in subset:
        axes[stream] = {0: "batch", 1: f"{stream}_steps"}
        axes[lengths_name(stream)] = {0: "batch"}
    return axes


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    if tuple(names) == ("every",):
        return stream_subsets()
    try:
        return [parse_subset(name) for name in names]
    except ValueError as error:
        raise UsageError(f"--streams: {error}; or every") from None


def _check_onnx() -> None:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--format onnx: needs pip install 'mmembed[onnx]' ({error})") from None
    onnxruntime.disable_telemetry_events()


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own deprecations and of packages that nobody asked for."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    leave(run_program(main))
