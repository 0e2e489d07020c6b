"""Run the frozen encoder over clips and write embedding shards.

    export/extract.py clips/ --encoder runs/tiny/encoder --out embeddings
    torchrun --nproc-per-node 2 export/extract.py corpus/shards --encoder E --out D --streams every

Inputs are media files, folders of them, manifests (.jsonl) or folders of prepared shards. Shards
are plain webdataset tars: KEY.pooled.npy (2 D,) and KEY.layers.npy (L, 2 D) float32, on request
KEY.frames.npy (T, D) float16, and KEY.json (streams used, seconds, speaker, split, labels).

The plan of shards is fixed by the inputs, so any number of processes may share the work, and the
same command again makes only the shards that are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

from mmembed.batch import STREAMS, parse_subset, stream_subsets, subset_name
from mmembed.commands.cli import leave, run_program
from mmembed.commands.progress import progress
from mmembed.data.decoding import Decoder
from mmembed.data.example import Example
from mmembed.data.manifest import to_row
from mmembed.data.shards import (
    Record,
    finish,
    index_shards,
    is_committed,
    shard_sidecars,
    write_shard,
)
from mmembed.data.sources import Source, load_all, open_sources
from mmembed.embedder import Embedder
from mmembed.embedder.windows import batches
from mmembed.errors import BudgetError, DataError, UsageError
from mmembed.features.video import check_face_model
from mmembed.training.distributed import join_world
from mmembed.training.tracking import claim_folder, write_lines


@dataclass(frozen=True)
class Extract:
    """What to embed and how.

    Attributes:
        inputs: media files, folders, manifests (.jsonl) or folders of prepared shards.
        encoder: folder of the frozen encoder.
        out: folder for the shards; with several stream subsets, one folder below it for each.
        streams: stream subsets such as "audio+video"; "all" = what each clip has;
            "every" = each non-empty subset.
        frames: also write the frames (T, D).
        records_per_shard: clips in one shard.
        clips_at_once: clips in one batch; does not change the vectors.
        error_budget: share of clips that may fail before the command does.
        timeout: seconds after which a clip is given up.
        face_model: YuNet's ONNX file, where the encoder's faces were found with it.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    encoder: Path
    out: Path
    streams: tuple[str, ...] = ("all",)
    frames: bool = False
    records_per_shard: int = 512
    clips_at_once: int = 16
    error_budget: float = 0.01
    timeout: float = 120.0
    face_model: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, open, embed, report."""
    settings = tyro.cli(Extract, prog="mmembed extract", args=argv, description=__doc__)
    with join_world() as world:
        embedder = Embedder.from_pretrained(settings.encoder, world.device)
        folders = _folders(settings)
        if settings.face_model is not None:
            check_face_model(settings.face_model)
        wanted = tuple(s for s in STREAMS if any(s in subset for subset in folders.values()))
        sources = open_sources(settings.inputs, wanted, settings.face_model, long=True)
        _check_keys(sources)
        plan = [
            (folder, subset, number)
            for folder, subset in folders.items()
            for number in range(-(-len(sources) // settings.records_per_shard))
        ]
        if world.is_main:
            for folder, subset in folders.items():
                provenance = {
                    **embedder.description,
                    "streams": list(subset),
                    "inputs": [str(path) for path in settings.inputs],
                    "clips": len(sources),
                    "records_per_shard": settings.records_per_shard,
                    "frames": settings.frames,
                }
                made = {"made_with": provenance.pop("made_with")}  # may change until all is done
                claim_folder(folder, provenance)
                finish(folder, **provenance, **made)
        world.wait()
        shown = progress("extract", len(plan), show=world.is_main)
        with shown as update, Decoder(seconds=settings.timeout) as decoder:
            for place in range(world.rank, len(plan), world.size):
                folder, subset, number = plan[place]
                first = number * settings.records_per_shard
                part = sources[first : first + settings.records_per_shard]
                path = folder / f"shard-{number:06d}.tar"
                if not is_committed(path):
                    _make_shard(settings, embedder, load_all(part, decoder), part, subset, path)
                update(min(place + world.size, len(plan)))
        world.wait()
        if world.is_main:
            _report(settings, folders, len(sources))


def _check_keys(sources: Sequence[Source]) -> None:
    """The key is all that tells one vector from another."""
    seen: set[str] = set()
    for source in sources:
        if source.key in seen:
            raise UsageError(f"{source.name}: another clip has its key; name each clip once")
        seen.add(source.key)


def _folders(settings: Extract) -> dict[Path, tuple[str, ...]]:
    """Output folder -> the streams used there."""
    if settings.streams == ("all",):
        return {settings.out: STREAMS}
    if settings.streams == ("every",):
        subsets = stream_subsets()
    else:
        try:
            subsets = [parse_subset(name) for name in settings.streams]
        except ValueError as error:
            raise UsageError(f"--streams: {error}; or all, or every") from None
    return {settings.out / subset_name(subset): subset for subset in subsets}


def _make_shard(
    settings: Extract,
    embedder: Embedder,
    examples: Iterable[Example | DataError],
    sources: Sequence[Source],
    streams: tuple[str, ...],
    path: Path,
) -> None:
    """Embed one shard's clips; what fails is listed in the shard's sidecar."""
    failed: list[dict[str, str]] = []

    def usable() -> Iterator[Example]:
        for source, example in zip(sources, examples, strict=True):
            if isinstance(example, DataError):
                failed.append(_failure(source.name, example.reason, str(example)))
            elif not set(example.streams) & set(streams):
                message = f"{source.name}: has none of {', '.join(streams)}"
                failed.append(_failure(source.name, "no_streams", message))
            else:
                yield example.only(streams)

    records = [
        record
        for batch in batches(usable(), settings.clips_at_once)
        for record in _embed(embedder, batch, settings.frames)
    ]
    write_shard(path, records, {**embedder.description, "failed": failed})


def _failure(item: str, reason: str, message: str) -> dict[str, str]:
    return {"item": item, "reason": reason, "message": message}


def _embed(embedder: Embedder, examples: Sequence[Example], frames: bool) -> Iterator[Record]:
    encoding = embedder.encode(examples)
    for row, example in enumerate(examples):
        members: dict[str, NDArray[np.generic] | Mapping[str, object]] = {
            "pooled.npy": encoding.pooled[row].numpy(),
            "layers.npy": encoding.layers[row].numpy(),
        }
        if frames:
            members["frames.npy"] = encoding.frames.item(row).numpy().astype(np.float16)
        described = to_row(example.utterance)
        members["json"] = {
            **{name: described.get(name) for name in ("speaker", "split", "labels", "language")},
            "streams": list(example.streams),
            "notes": dict(example.notes),
            "frame_rate": encoding.frame_rate,
        }
        meta = {
            "frames": int(encoding.frames.lengths[row]),
            "split": example.utterance.split,
            "speaker": example.utterance.speaker,
        }
        yield Record(example.key, members, meta)


def _report(settings: Extract, folders: Mapping[Path, tuple[str, ...]], total: int) -> None:
    """Index the shards, gather what failed from all of them, print the outcome."""
    failures = []
    for folder in folders:
        listed = [f for p in shard_sidecars(folder) for f in p["provenance"]["failed"]]
        write_lines(folder / "failed.jsonl", listed)
        index_shards(folder)
        failures += listed
        for failure in listed[:5]:
            print(f"failed ({failure['reason']}): {failure['message']}", file=sys.stderr)
    done = total * len(folders) - len(failures)
    print(f"{done} embeddings in {settings.out}, {len(failures)} failed", flush=True)
    if len(failures) > settings.error_budget * total * len(folders):
        raise BudgetError(
            f"{len(failures)} of {total * len(folders)} failed, more than "
            f"--error-budget {settings.error_budget}: see failed.jsonl in {settings.out}"
        )


if __name__ == "__main__":
    leave(run_program(main))
