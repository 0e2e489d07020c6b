"""Speed on one device: training and extraction, by recipe and precision, in under eight minutes.

    python benchmarks/gpu.py --out gpu.json
    python benchmarks/gpu.py --small --out cpu.json      # minutes on two cores: that it runs

Clips are noise of 2 to 6 seconds (audio, face crops, words; audio alone on Whisper), the weights
are random: speed depends on neither. Rates are seconds of clip a second, the median of several
steps. MFU is the share of the device's own rate of large matrix products in the same precision, for
the floating-point operations that torch counts in one step. Packed and padded clips go through the
same encoder.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from mmembed import __version__
from mmembed.backbones.pretrained import build_encoder
from mmembed.batch import Batch
from mmembed.data.item import Item, collate
from mmembed.embedder.programs import program_inputs
from mmembed.features.audio import MEL_BANDS, SAMPLE_RATE
from mmembed.features.video import CROP
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.settings.pretrain import RECIPES
from mmembed.streams import STREAMS
from mmembed.traceable import traceable
from mmembed.training.distributed import World, local_device
from mmembed.training.optim import build_optimizer
from mmembed.training.recompute import recompute_blocks
from mmembed.training.step import train_step

WHISPER_BASE = {
    "model_type": "whisper", "d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048, "num_mel_bins": 80, "max_source_positions": 1500,
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        out: JSON file of results.
        small: few clips and the smallest recipes, for a CPU.
        clips: in a batch.
        steps: timed for each figure, after two that are not.
        peak: rate of the device in TFLOP/s in bf16 by its data sheet, for a second MFU.
    """

    out: Path = Path("gpu.json")
    small: bool = False
    clips: int = 64
    steps: int = 10
    peak: float = 0.0


def main() -> None:
    """Measure, print a line for each figure, write all of them."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.small:
        settings = replace(settings, clips=4, steps=2)
    device, results = local_device(), dict[str, Any]()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    products = {kind: matrix_rate(device, dtype) for kind, dtype in DTYPES.items()}
    results |= {"device": name, "torch": torch.__version__, "mmembed": __version__}
    results |= {"clips": settings.clips, "matrix_products_flops": products}
    print(f"{name}: matrix products {products['fp32']:.3g} (fp32), {products['bf16']:.3g} FLOP/s")
    print(f"{'':34} {'s of clip/s':>12} {'MFU':>6} {'GiB':>6}")
    names = ["tiny", "whisper base, top"] if settings.small else [*NAMES]
    for recipe in names:
        for kind in DTYPES:
            for recompute in (False, True):
                if recompute and (recipe in ("tiny", "base") or kind == "fp32"):
                    continue
                label = f"train {recipe} {kind}{' recompute' if recompute else ''}"
                results[label] = training(recipe, kind, recompute, settings, device, products[kind])
                show(label, results[label])
    for recipe in names[:1] if settings.small else ("tiny", "base", "whisper base, top"):
        for kind in DTYPES:
            for padded in (False, True):
                label = f"embed {recipe} {kind} {'padded' if padded else 'packed'}"
                results[label] = extraction(recipe, kind, padded, settings, device, products[kind])
                show(label, results[label])
    settings.out.write_text(json.dumps(results, indent=1) + "\n")


NAMES = ("tiny", "base", "large", "whisper base, top", "whisper base, lora", "whisper base, all")


def show(label: str, found: dict[str, float]) -> None:
    """One line."""
    numbers = f"{found['rate']:12.1f} {found['mfu']:6.1%} {found['gib']:6.1f}"
    print(f"{label:34} {numbers}", flush=True)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of large matrix products."""
    size = 8192 if device.type == "cuda" else 1024
    x = torch.randn(size, size, device=device, dtype=dtype)
    return 2 * size**3 / seconds(lambda: x @ x, device, 5)


def seconds(work: Callable[[], object], device: torch.device, times: int) -> float:
    """The median time of some work."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    found = []
    for _ in range(times + 2):
        wait()
        started = time.perf_counter()
        work()
        wait()
        found.append(time.perf_counter() - started)
    return statistics.median(found[2:])


def make(recipe: str, device: torch.device) -> CtcSpeaker:
    """The method of a recipe with random weights."""
    torch.manual_seed(0)
    name, _, tuned = recipe.partition(", ")
    run = RECIPES["speech_whisper" if tuned else name]()
    encoder = replace(run.method.encoder, vocabulary_size=256)
    backbones = {}
    if tuned:
        kind: Any = tuned
        audio = replace(encoder.audio, name=name, tuned=kind)
        encoder = replace(encoder, audio=audio)
        backbones = {"audio": build_encoder(WHISPER_BASE)}
    config = replace(run.method, encoder=encoder, num_speakers=100, alphabet_size=40)
    return CtcSpeaker(config, backbones).to(device)


def clips(recipe: str, count: int) -> tuple[Batch, float]:
    """A batch, and its seconds."""
    draw = np.random.default_rng(0)
    generator, items, total = torch.Generator().manual_seed(0), [], 0.0
    for number, frames in enumerate(draw.integers(50, 151, count).tolist()):
        inputs = {
            "audio": torch.randn(4 * frames, MEL_BANDS, generator=generator),
            "video": torch.randint(0, 256, (frames, CROP, CROP), generator=generator).byte(),
            "text": torch.randint(3, 250, (frames // 10,), generator=generator),
        }
        if recipe.startswith("whisper"):
            samples = 0.1 * torch.randn(frames * SAMPLE_RATE // 25, generator=generator)
            nothing = {"video": inputs["video"][:0], "text": inputs["text"][:0]}
            inputs = {"audio": samples, **nothing}
        words = torch.randint(3, 40, (frames // 5,), generator=generator)
        items.append(Item(str(number), inputs, words, speaker=number % 100, audio_frames=frames))
        total += frames / 25
    return collate(items), total


def training(
    recipe: str,
    kind: str,
    recompute: bool,
    settings: Settings,
    device: torch.device,
    products: float,
) -> dict[str, float]:
    """Steps of one batch."""
    method = make(recipe, device).train()
    if recompute:
        recompute_blocks(method)
    batch, lasts = clips(recipe, settings.clips)
    batch = batch.to(device)
    optimizer = build_optimizer(method, RECIPES["tiny"]().optim)
    world = World(0, 1, device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=kind == "bf16"):
            train_step(method, optimizer, [batch], rate=1e-4, clip=1.0, world=world)

    return measured(step, lasts, settings, device, products)


def extraction(
    recipe: str,
    kind: str,
    padded: bool,
    settings: Settings,
    device: torch.device,
    products: float,
) -> dict[str, float]:
    """Embeddings of one batch, its clips packed, or padded to the longest and masked."""
    encoder = make(recipe, device).eval().encoder
    batch, lasts = clips(recipe, settings.clips)
    held = {stream: steps.pack() for stream, steps in batch.inputs.items()}
    inputs: Any = {stream: steps.to(device) for stream, steps in held.items()}
    run: Any = encoder
    if padded:
        streams = [stream for stream in STREAMS if len(held[stream].values)]
        given = program_inputs(encoder, {stream: inputs[stream] for stream in streams})
        inputs = {name: tensor.to(device) for name, tensor in given.items()}
        run = traceable(encoder, streams).eval()

    @torch.no_grad()
    def embed() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=kind == "bf16"):
            run(inputs)

    return measured(embed, lasts, settings, device, products)


def measured(
    work: Callable[[], None],
    lasts: float,
    settings: Settings,
    device: torch.device,
    products: float,
) -> dict[str, float]:
    """Rate, MFU and memory of some work on clips of so many seconds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with FlopCounterMode(display=False) as counter:
        work()
    took = seconds(work, device, settings.steps)
    flops = counter.get_total_flops() / took
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    found = {"rate": lasts / took, "mfu": flops / products, "gib": memory / (1 << 30)}
    if settings.peak:
        found["mfu_of_data_sheet"] = flops / (settings.peak * 1e12)
    return found


if __name__ == "__main__":
    main()
