"""An extraction that was opened, and its shards by number in any process."""

from __future__ import annotations

import atexit
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch

from mmembed.config import read_json
from mmembed.data.checks import Check, collect_skipped
from mmembed.data.inputs import check_keys, digest_of, expand_inputs, open_sources
from mmembed.data.manifest.utterance import without_secrets
from mmembed.data.media.load import ReadySource, Source
from mmembed.data.media.pool import Decoder
from mmembed.embedder import Embedder
from mmembed.embeddings.output import Output, open_output
from mmembed.embeddings.plan import Plan, Subset
from mmembed.embeddings.write import Content, Threads, make_shards
from mmembed.errors import UsageError
from mmembed.settings.extract import Extract
from mmembed.streams import STREAMS, parse_subset, stream_subsets, subset_name
from mmembed.training.distributed import check_precision, local_device

# What may change from one start to the next: it names the same bytes in other ways, or decides only
# which clips fail.
MUTABLE_FIELDS: Final = ("command", "encoder", "inputs", "timeout")


@dataclass(frozen=True)
class Extraction:
    """Its encoder, its clips and the plan of its shards; as a context manager it ends its processes
    and threads.

    Attributes:
        settings: of the user.
        content: what is stored of each clip.
        output: where the shards go.
        plan: which clips stand in which shard.
        inputs_sha256: of which clips these are.
        skipped: inputs that were passed over.
        decoder: decodes clips.
        threads: embed them.
    """

    settings: Extract
    content: Content
    output: Output
    plan: Plan
    inputs_sha256: str
    skipped: Sequence[Check]
    decoder: Decoder
    threads: Threads

    @classmethod
    def open(cls, settings: Extract, device: torch.device, output: Output) -> Self:
        """Load the encoder and find the clips; nothing is written.

        Args:
            settings: of the user.
            device: on which is embedded.
            output: what `settings.out` means.

        Raises:
            UsageError: settings contradict each other or what is there.
        """
        _check(settings)
        if not output.is_local:
            _check_store(settings)
        embedder = Embedder.from_pretrained(
            settings.encoder,
            device,
            face_model=settings.face_model,
            recogniser=settings.recogniser,
            workers=settings.workers,
        )
        check_precision(settings.precision, device)
        content = Content(
            embedder, settings.granularity, settings.layers, settings.dtype, settings.precision
        )
        folders = _folders(settings, output.folder, embedder.encoder.reads)
        wanted = tuple(s for s in STREAMS if any(s in held for held in folders.values()))
        inputs = expand_inputs(settings.inputs, sys.stdin)
        with collect_skipped() as skipped:
            sources = open_sources(
                inputs,
                wanted,
                settings.face_model,
                longest=settings.max_seconds,
                crops=embedder.encoder.crops,
                any_crops=embedder.encoder.any_crops,
            )
        check_keys(sources)
        if "word" in settings.granularity and embedder.listening is None:
            _check_times(sources)
        return cls(
            settings,
            content,
            output,
            Plan(sources, folders, settings.records_per_shard, is_committed=output.is_committed),
            digest_of(sources),
            skipped,
            Decoder(embedder.workers, seconds=settings.timeout),
            Threads.of(device),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.threads.__exit__(kind, error, traceback)
        self.decoder.close()

    def check(self) -> None:
        """Raises UsageError where a folder belongs to other settings; nothing is written."""
        for folder in self.plan.folders:
            self.output.check(folder, self._config(folder), MUTABLE_FIELDS)

    def begin(self, part: str, numbers: Iterable[int]) -> list[int]:
        """Take part in the work, in folders that are made if they are not there.

        Args:
            part: the name under which this process shares the folders.
            numbers: of the shards that are its own.

        Returns:
            Those of them that are missing, or made of clips that were replaced since.

        Raises:
            UsageError: a folder belongs to other settings, or another program is at work there.
        """
        for folder in self.plan.folders:
            self.output.claim(folder, self._config(folder), MUTABLE_FIELDS, part)
        own = [*numbers]
        self.output.drop_changed(self.plan, own)
        return [number for number in own if self.plan.missing(number)]

    def make(
        self,
        numbers: Iterable[int],
        on_progress: Callable[[int], None] = lambda done: None,
        on_commit: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Make shards; for arguments see `mmembed.embeddings.write.make_shards`."""

        def commit(number: int) -> None:
            self.output.commit(number)
            on_commit(number)

        make_shards(
            self.plan,
            numbers,
            self.decoder.load,
            self.content,
            self.provenance,
            self.settings.batch_frames,
            self.threads,
            on_progress,
            commit,
        )

    def provenance(self, streams: Subset) -> dict[str, Any]:
        """How the shards of a stream subset are made; stands in each of them. Nothing is drawn by
        chance, so there is no seed.
        """
        settings, faces = self.settings, self.settings.face_model
        return {
            **self.content.description,
            "streams": list(streams),
            "clips": len(self.plan.sources),
            "inputs_sha256": self.inputs_sha256,
            "records_per_shard": settings.records_per_shard,
            "batch_frames": settings.batch_frames,
            "timeout": settings.timeout,
            "max_seconds": settings.max_seconds,
            "face_model_sha256": None if faces is None else sha256(faces.read_bytes()).hexdigest(),
            "inputs": [without_secrets(name) for name in settings.inputs],
            "encoder": " ".join(settings.encoder),
            "command": _command(settings),
        }

    def _config(self, folder: Path) -> Mapping[str, Any]:
        """What has to be the same until all shards of a folder are there.

        Raises:
            UsageError: a version began it that formed batches of another kind.
        """
        path = folder / "run.json"
        if path.exists() and "batch_size" in (made := read_json(path)):
            raise UsageError(
                f"{folder}: begun with --batch-size {made['batch_size']}, by a version whose "
                "batches had so many clips; finish it with that version, or choose another --out"
            )
        config = self.provenance(self.plan.folders[folder])
        return {name: value for name, value in config.items() if name != "made_with"}


@dataclass(frozen=True)
class MakeShard:
    """A function from the number of a shard to that shard on disk, for engines that schedule work.

    It can be pickled. A process loads the encoder and finds the clips at its first shard, and keeps
    both for the next. Where several make the same shard, they write the same bytes. When all are
    there, `mmembed.embeddings.extract.extract(settings)` writes manifest.json.

    Attributes:
        settings: of all processes.
        folder: where relative paths start; all machines see it.
    """

    settings: Extract
    folder: Path = field(default_factory=Path.cwd)

    def __call__(self, number: int) -> int:
        """Make this shard, unless it is there; the number of its clips.

        Raises:
            UsageError: there is no such shard, or see `Extraction`.
        """
        plan = self.opened.plan
        if number not in plan.numbers:
            raise UsageError(f"shard {number}: there are shards 0 to {len(plan.numbers) - 1}")
        self.opened.make(self._begin([number]))
        return len(plan.clips(number))

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not there yet."""
        return self._begin(self.opened.plan.numbers)

    @property
    def opened(self) -> Extraction:
        """Of this process."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: {error.strerror}; start in a folder that all machines see"
            ) from None
        return _open_once(self)

    def _begin(self, numbers: Sequence[int]) -> list[int]:
        self.opened.output.look(self.opened.plan, numbers)
        self.opened.plan.make_again(numbers, self.settings.retry_failed)
        return self.opened.begin(part_of("shards"), numbers)


@lru_cache(maxsize=1)
def _open_once(make: MakeShard) -> Extraction:
    stack = ExitStack()
    atexit.register(stack.close)
    output = stack.enter_context(open_output(make.settings.out))
    return Extraction.open(make.settings, local_device(), output)


def part_of(workers: str) -> str:
    """A name under which this process shares folders with others that share the work likewise."""
    return f"{secrets.token_hex(4)}-of-{workers}"


def _check(settings: Extract) -> None:
    """Raises UsageError where settings contradict each other."""
    if not settings.inputs:
        raise UsageError("nothing to extract; name clips, folders, manifests or shards")
    for name in ("records_per_shard", "batch_frames", "workers"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: at least 1")
    if settings.recogniser is not None and "word" not in settings.granularity:
        raise UsageError("--recogniser: it finds words; add word to --granularity")
    ways = {
        "--shard": settings.shard is not None,
        "--take": settings.take,
        "--ray": settings.ray is not None,
        "--rank": settings.rank is not None or settings.world is not None,
    }
    if len(chosen := [name for name, given in ways.items() if given]) > 1:
        raise UsageError(f"{' and '.join(chosen)}: one way to share the work at a time")
    if settings.ray is not None and "-" in settings.inputs:
        raise UsageError("-: the processes of --ray have no common stdin; give a manifest instead")
    if settings.json and not settings.plan:
        raise UsageError("--json goes with --plan")


def _check_store(settings: Extract) -> None:
    """Raises UsageError for what goes with a folder here alone."""
    for name, given in {"--take": settings.take, "--ray": settings.ray is not None}.items():
        if given:
            raise UsageError(
                f"{name}: not in an object store; share the work by --rank and --world, or --shard"
            )
    if others := [name for name in settings.format if name != "webdataset"]:
        raise UsageError(
            f"--format {others[0]}: not in an object store; extract to a folder, and copy that"
        )


def _folders(settings: Extract, out: Path, reads: Subset) -> dict[Path, Subset]:
    """Output folder -> the streams used there, of those that the encoder reads."""
    if settings.streams == ("all",):
        return {out: reads}
    if settings.streams == ("every",):
        subsets = stream_subsets(reads)
    else:
        try:
            subsets = [parse_subset(name) for name in settings.streams]
        except ValueError as error:
            raise UsageError(f"--streams: {error}; or all, or every") from None
    for subset in subsets:
        if not set(subset) <= set(reads):
            raise UsageError(
                f"--streams {subset_name(subset)}: the encoder reads {' and '.join(reads)} alone"
            )
    return {out / subset_name(subset): subset for subset in subsets}


def _command(settings: Extract) -> str:
    """The command that makes these bytes again, anywhere: without what changes none of them."""
    words = [
        "mmembed",
        "extract",
        *map(without_secrets, settings.inputs),
        "--encoder",
        *settings.encoder,
    ]
    names = ("streams", "granularity", "recogniser", "layers", "dtype", "precision")
    kept = (*names, "records_per_shard", "batch_frames", "timeout", "max_seconds", "face_model")
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if setting.name in kept and value != setting.default:
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{setting.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _check_times(sources: Sequence[Source]) -> None:
    """Refuse clips of which none has words with times; only reading shows those of shards."""
    if not any(isinstance(x, ReadySource) or x.utterance.words for x in sources):
        raise UsageError(
            "--granularity word: the encoder has no recogniser and no clip has words with times; "
            "name a folder of `mmembed pretrain` as --recogniser, or give `words` in a manifest"
        )
