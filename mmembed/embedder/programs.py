"""A frozen encoder as programs that run without mmembed; see `mmembed export`."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from mmembed.backbones.stream import PaddedForm
from mmembed.batch import Packed, Padded
from mmembed.embedder import Embedder
from mmembed.encoder import Encoder
from mmembed.errors import CorruptError, UsageError
from mmembed.features.audio import FEATURE_RATE, MEL_BANDS
from mmembed.features.video import CROP, VIDEO_RATE
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.pretrained_encoder import PretrainedEncoder
from mmembed.streams import STREAMS, parse_subset, stream_subsets, subset_name
from mmembed.traceable import OUTPUTS, lengths_name, traceable

METADATA: Final = "mmembed"
TRACED: Final = (2, 30)  # items, and steps of the longest, of the batch that is traced
CHECKED: Final = ((1, 1), (1, 103), (5, 64), (3, 230))  # likewise, of those that are compared

OURS: Final[Mapping[str, PaddedForm]] = {
    "audio": PaddedForm(
        "mmembed.features.audio.log_mel: log-mel power of 16-bit mono sound at 16 kHz",
        dtype="float32",
        shape=(MEL_BANDS,),
        rate=FEATURE_RATE,
    ),
    "video": PaddedForm(
        "mmembed.features.video.face_crops: grey face crops of the speaker",
        dtype="uint8",
        shape=(CROP, CROP),
        rate=VIDEO_RATE,
        values=256,
    ),
    "text": PaddedForm(
        "mmembed.features.text.Vocabulary.encode, with vocabulary.model of the encoder folder",
        dtype="int64",
    ),
}

Inputs: TypeAlias = dict[str, Tensor]
Run: TypeAlias = Callable[[Inputs], Mapping[str, Tensor]]


def export_programs(
    model: Sequence[str], kind: str, out: Path, streams: Sequence[str], tolerance: float
) -> None:
    """Load; then for each subset export, compare, write.

    Args:
        model: the encoder, as `mmembed export` takes it.
        kind: of `FORMATS`.
        out: file to write; the stream subset is inserted before its suffix.
        streams: stream subsets, or "every".
        tolerance: largest allowed difference from the encoder.

    Raises:
        CorruptError: a program differs by more; it is not written.
        UsageError: the encoder cannot be exported so.
    """
    if kind == "onnx":
        _check_onnx()
    embedder = Embedder.from_pretrained(model)
    encoder = embedder.encoder
    subsets = _subsets(streams, encoder.reads)
    input_forms(encoder, {stream for subset in subsets for stream in subset})
    export, load = FORMATS[kind]
    for subset in subsets:
        name = subset_name(subset)
        path = out.with_name(f"{out.stem}.{name}{out.suffix}")
        with _quiet(), torch.no_grad():
            program = trace(encoder, subset)
            data = export(program, subset, dumps(describe(embedder, subset), indent=1))
            difference = largest_difference(load(data), encoder, subset)
        print(f"{path}: differs from the encoder by {difference:.1e} at most", flush=True)
        if not difference <= tolerance:
            raise CorruptError(
                f"{path}: not written, it differs from the encoder by {difference:.1e}, more than "
                f"--tolerance {tolerance}"
            )
        with atomic_file(path) as file:
            file.write(data)


def describe(embedder: Embedder, subset: Sequence[str]) -> dict[str, Any]:
    """What a user of the file has to know: inputs, outputs, and where it comes from."""
    encoder = embedder.encoder
    width, layers = encoder.frame_width, len(encoder.layer_names)
    inputs: dict[str, Any] = {}
    for stream, form in input_forms(encoder, subset).items():
        inputs[stream] = {
            "shape": ["batch", f"{stream}_steps", *form.shape],
            "dtype": form.dtype,
            "made_by": form.made_by,
        }
        if form.rate:
            inputs[stream]["steps_per_second"] = form.rate
        most = f", at most {form.longest}" if form.longest else ""
        inputs[lengths_name(stream)] = {
            "shape": ["batch"],
            "dtype": "int64",
            "range": f"from 1 to the stream's steps{most}",
        }
    return {
        **embedder.description,
        "streams": list(subset),
        "inputs": inputs,
        "outputs": {
            "pooled": {"shape": ["batch", 2 * width], "dtype": "float32"},
            "frames": {
                "shape": ["batch", "frames", width],
                "dtype": "float32",
                "steps_per_second": encoder.frame_rate,
                "padding": "zeros from frame_lengths on",
            },
            "frame_lengths": {"shape": ["batch"], "dtype": "int64"},
            "layers": {"shape": ["batch", layers, 2 * encoder.layer_width], "dtype": "float32"},
        },
    }


def input_forms(
    encoder: Encoder | PretrainedEncoder, streams: Iterable[str]
) -> dict[str, PaddedForm]:
    """How each of these streams is given to a program.

    Raises:
        UsageError: one of them has a pretrained front end that cannot be exported.
    """
    forms = {}
    for stream in STREAMS:
        if stream not in streams:
            continue
        backbone, form = encoder.backbone(stream), OURS[stream]
        if stream == "text" and isinstance(encoder, Encoder):
            form = replace(form, values=encoder.config.vocabulary_size)
        forms[stream] = form if backbone is None else backbone.padded_form
    return forms


def trace(encoder: Encoder | PretrainedEncoder, subset: Sequence[str]) -> ExportedProgram:
    """The encoder for a stream subset, for batches of any size and length."""
    named = _axes(subset)
    axes = {axis: Dim(axis) for places in named.values() for axis in places.values()}
    for stream, form in input_forms(encoder, subset).items():
        if form.longest:
            axes[f"{stream}_steps"] = Dim(f"{stream}_steps", max=form.longest)
    shapes = {name: {n: axes[axis] for n, axis in places.items()} for name, places in named.items()}
    example = program_inputs(encoder, random_clips(encoder, subset, *TRACED))
    wrapped = traceable(encoder, subset).eval()
    program = torch.export.export(wrapped, (example,), dynamic_shapes=(shapes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # places in files of this machine
    return program


def random_clips(
    encoder: Encoder | PretrainedEncoder, subset: Sequence[str], size: int, longest: int
) -> dict[str, Packed]:
    """A batch of noise as the encoder reads it, the first item of which is the longest.

    Args:
        encoder: of which it is the input.
        subset: streams of each item.
        size: items.
        longest: steps of a program's input, about; of what a pretrained encoder sees, an eighth.
    """
    generator = torch.Generator().manual_seed(size * longest)
    clips = {}
    for number, (stream, form) in enumerate(input_forms(encoder, subset).items()):
        steps = longest + number  # no two streams alike
        if stream == "video" and encoder.backbone(stream) is not None:
            steps = -(-longest // 8) + number
        steps = min(steps, form.longest or steps)
        lengths = torch.randint(1, steps + 1, (size,), generator=generator)
        lengths[0] = steps
        # Where several steps are read as one, the last of them is not always whole.
        lengths = lengths * form.hop - torch.randint(form.hop, (size,), generator=generator)
        shape = (int(lengths.sum()), *(form.shape if form.hop == 1 else ()))
        values = (
            torch.randint(form.values, shape, generator=generator)
            if form.values
            else torch.randn(shape, generator=generator)
        )
        clips[stream] = Packed(values.to(getattr(torch, form.dtype)), lengths)
    return clips


def program_inputs(encoder: Encoder | PretrainedEncoder, clips: Mapping[str, Packed]) -> Inputs:
    """The same clips as a program reads them, something in the padding."""
    inputs: Inputs = {}
    for stream, packed in clips.items():
        backbone = encoder.backbone(stream)
        padded = packed.pad() if backbone is None else backbone.to_padded(packed)
        mask = padded.mask.reshape(*padded.mask.shape, *[1] * (padded.values.ndim - 2))
        inputs[stream] = padded.values.masked_fill(~mask, 1)
        inputs[lengths_name(stream)] = padded.lengths
    return inputs


def largest_difference(
    run: Run, encoder: Encoder | PretrainedEncoder, subset: Sequence[str]
) -> float:
    """Between a program and the encoder, over batches it was not made with.

    Returns:
        The largest difference in pooled, frames and layers, relative to numbers above 1; NaN if one
        of them is, or if the lengths differ.
    """
    largest = torch.zeros(())
    for size, longest in CHECKED:
        clips = random_clips(encoder, subset, size, longest)
        found = run(program_inputs(encoder, clips))
        expected = encoder(clips)
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


def _subsets(names: Sequence[str], read: Sequence[str]) -> list[tuple[str, ...]]:
    """Those of the streams that the encoder reads."""
    if tuple(names) == ("every",):
        return stream_subsets(read)
    try:
        subsets = [parse_subset(name) for name in names]
    except ValueError as error:
        raise UsageError(f"--streams: {error}; or every") from None
    for subset in subsets:
        if not set(subset) <= set(read):
            told = f"--streams {subset_name(subset)}: the encoder reads {subset_name(read)} alone"
            raise UsageError(told)
    return subsets


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
