"""Pretrained speech encoders beside the usual loops of transformers: speed and memory.

    python benchmarks/backbones.py [--whisper FOLDER] [--clips 24] [--models whisper wav2vec2 wavlm]

Clips are noise, the same for all ways: for Whisper of 2 to 6 seconds, for the others of lengths as
utterances have them (half are below 3.5 s, one in twenty is above 11 s). Weights are random, of the
size of the base models, unless a folder with Whisper is given: speed does not depend on them. From
samples to all layers, on one thread and on two:

- Whisper: the loop of transformers with its log-mels of 30 s, and ours, one clip at a time and
  eight at a time;
- wav2vec 2.0 and WavLM: transformers one clip at a time and in padded batches of eight in the order
  in which clips come, and ours, both ways.

Each way has a process of its own and they take turns, so that all see the same changes of the
machine. The medians of wall time and of processor time are printed: on a machine that does other
work the second says more. Speed-up is over the first way, by processor time on one thread and else
by wall time. Memory is what encoding adds to the process at its peak (Linux): the layers of a batch
and what makes them, not weights.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from mmembed.backbones.pretrained import build_encoder, load_pretrained
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Packed
from mmembed.features.audio import SAMPLE_RATE

AT_ONCE = 8
SHORTEST, LONGEST = 2.0, 6.0  # seconds, of clips for Whisper
MEDIAN, SPREAD, LIMITS = 3.5, 0.7, (0.5, 20.0)  # seconds, and of their logarithm, of utterances
BASE = {  # sizes of openai/whisper-base; the others are base by default
    "whisper": {
        "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
        "activation_function": "gelu", "num_mel_bins": 80,
    },
    "wav2vec2": {},
    "hubert": {},
    "wavlm": {},
}  # fmt: skip
Way = Callable[[list[Tensor]], object]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        whisper: folder of genuine weights; without it, random ones.
        models: of these architectures.
        clips: how many.
        repeats: of each measurement.
        threads: numbers of threads, each measured by itself.
        out: also write the figures to this file, as JSON.
    """

    whisper: Path | None = None
    models: tuple[str, ...] = ("whisper", "wav2vec2", "wavlm")
    clips: int = 24
    repeats: int = 5
    threads: tuple[int, ...] = (1, 2)
    out: Path | None = None


def main(settings: Settings) -> None:
    rows = []
    for model in settings.models:
        clips = noise(model, settings.clips)
        for threads in settings.threads:
            rows += measured(model, threads, settings, clips)
    if settings.out is not None:
        settings.out.write_text(json.dumps(rows, indent=2))


def noise(model: str, count: int) -> list[Tensor]:
    """(N_i,) samples of each clip."""
    draw = torch.Generator().manual_seed(0)
    if model == "whisper":
        seconds = SHORTEST + (LONGEST - SHORTEST) * torch.rand(count, generator=draw)
    else:
        seconds = MEDIAN * (SPREAD * torch.randn(count, generator=draw)).exp()
        seconds = seconds.clamp(*LIMITS)
    return [0.1 * torch.randn(int(s * SAMPLE_RATE), generator=draw) for s in seconds]


def measured(
    model: str, threads: int, settings: Settings, clips: list[Tensor]
) -> list[dict[str, Any]]:
    """All ways of one architecture, in turns."""
    context = multiprocessing.get_context("spawn")
    links, processes = {}, []
    for way in WAYS[model]:
        links[way], theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, model, way, threads, settings.whisper, clips)
        )
        process.start()
        processes.append(process)
        links[way].recv()  # ready: loading would disturb the others
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in links}
    for _ in range(settings.repeats):
        for way, link in links.items():
            link.send("again")
            times[way].append(link.recv())
    rows: list[dict[str, Any]] = []
    total = sum(map(len, clips)) / SAMPLE_RATE
    print(f"\n{model}, {len(clips)} clips, {total:.0f} s, threads: {threads}")
    print(f"{'':34} {'wall s':>7} {'CPU s':>7} {'x real time':>12} {'speed-up':>9} {'peak MB':>8}")
    for way, link in links.items():
        link.send("end")
        peak = link.recv()
        wall, cpu = (statistics.median(column) for column in zip(*times[way], strict=True))
        took = cpu if threads == 1 else wall
        rows.append(
            {"model": model, "way": way, "threads": threads, "wall": wall, "cpu": cpu, "mb": peak}
        )
        faster = rows[0]["cpu" if threads == 1 else "wall"] / took
        print(f"{way:34} {wall:7.2f} {cpu:7.2f} {total / took:12.1f} {faster:8.2f}x {peak:8.0f}")
    for process in processes:
        process.join()
    return rows


def serve(
    link: Connection, model: str, way: str, threads: int, whisper: Path | None, clips: list[Tensor]
) -> None:
    """A process: encode all clips whenever told to, and say how long it took."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if model == "whisper" and whisper is not None:
        encoder = load_pretrained(str(whisper), "audio").encoder
    else:
        encoder = build_encoder({"model_type": model, **BASE[model]})
    with torch.inference_mode():
        run = WAYS[model][way](encoder)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before = peak_mb()
        run(clips[:2])
        link.send("ready")
        while link.recv() == "again":
            start, used = time.perf_counter(), time.process_time()
            run(clips)
            link.send((time.perf_counter() - start, time.process_time() - used))
        link.send(peak_mb() - before)


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM")) / 1024


def batches(clips: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def ours(size: int, pad_to: float | None = None) -> Callable[[StreamEncoder], Way]:
    def make(encoder: StreamEncoder) -> Way:
        if pad_to is not None:
            setattr(encoder, "pad_to", pad_to)  # noqa: B010

        def run(clips: list[Tensor]) -> None:
            for batch in batches(clips, size):
                encoder(Packed.concatenate(batch))

        return run

    return make


def theirs_whisper(encoder: StreamEncoder) -> Way:
    import transformers

    extractor = transformers.WhisperFeatureExtractor(encoder.model.config.num_mel_bins)  # type: ignore[no-untyped-call]
    model = encoder.model
    model.set_attn_implementation("sdpa")

    def run(clips: list[Tensor]) -> None:
        for clip in clips:
            features = extractor(clip.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            model(features.input_features, output_hidden_states=True)

    return run


def theirs(size: int) -> Callable[[StreamEncoder], Way]:
    """The module as transformers has it, fresh: ours has its attention replaced. Base models are
    padded without a mask, as their feature extractors do it.
    """

    def make(encoder: StreamEncoder) -> Way:
        import transformers

        model = transformers.AutoModel.from_config(encoder.model.config).eval()  # type: ignore[no-untyped-call]
        if model.config.model_type != "wavlm":  # it knows no other than its own
            model.set_attn_implementation("sdpa")
        extractor = transformers.Wav2Vec2FeatureExtractor()  # type: ignore[no-untyped-call]

        def run(clips: list[Tensor]) -> None:
            for batch in batches(clips, size):
                inputs = extractor(
                    [clip.numpy() for clip in batch],
                    sampling_rate=SAMPLE_RATE, padding=True, return_tensors="pt",
                )  # fmt: skip
                model(**inputs, output_hidden_states=True)

        return run

    return make


SAMPLES = {
    "transformers, one at a time": theirs(1),
    f"transformers, padded {AT_ONCE}": theirs(AT_ONCE),
    "ours, one at a time": ours(1),
    f"ours, {AT_ONCE} at a time": ours(AT_ONCE),
}
WAYS: dict[str, dict[str, Callable[[StreamEncoder], Way]]] = {
    "whisper": {
        "transformers, 30 s": theirs_whisper,
        "ours, 30 s": ours(1, 30.0),
        "ours, one at a time": ours(1),
        f"ours, {AT_ONCE} at a time": ours(AT_ONCE),
    },
    "wav2vec2": SAMPLES,
    "hubert": SAMPLES,
    "wavlm": SAMPLES,
}

if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
