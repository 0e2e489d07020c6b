"""Settings of extraction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from mmembed.config import BATCH_FRAMES, MAX_SECONDS, TIMEOUT, Precision

Granularity: TypeAlias = Literal["utterance", "frame", "word", "steps"]
Dtype: TypeAlias = Literal["float32", "float16"]
Format: TypeAlias = Literal["webdataset", "npy", "safetensors", "parquet"]


def _address(words: Sequence[str]) -> str:
    if len(words) > 1:
        raise ValueError("it takes one address at most; give other options, or inputs first")
    return words[0] if words else RUNNING


RUNNING: Final = "auto"
"""The address of the cluster that RAY_ADDRESS names, or that this machine belongs to."""

Address: TypeAlias = Annotated[
    str | None,
    PrimitiveConstructorSpec(
        nargs=(0, 1),
        metavar="[ADDRESS]",
        instance_from_str=_address,
        is_instance=lambda value: isinstance(value, str),
        str_from_instance=lambda value: [value],
    ),
]


@dataclass(frozen=True)
class Extract:
    """What to embed and how.

    Attributes:
        inputs: Media files, folders, wildcards in quotes, manifests, folders of prepared shards,
            URLs, or `-` for a list of these on standard input, one on each line.
        encoder: Folder of the frozen encoder, or its name on the Hugging Face hub: an encoder that
            `mmembed pretrain` made, or a public one such as "openai/whisper-base". Several public
            ones are named by stream: "audio=openai/whisper-base" "text=FOLDER".
        out: Folder for the shards, here or in an object store ("s3://bucket/prefix"). Several
            stream subsets get one folder each in it.
        streams: Stream subsets such as "audio+video". "all" means the streams that each clip has,
            "every" means each of the seven subsets.
        granularity: "utterance" stores one vector for each clip and layer, "frame" all frames (25 a
            second; a public encoder alone has its own rate), "word" one vector for each word of a
            known transcript: at the time that the manifest gives, else where a recogniser finds it,
            "steps" every layer at every step of a public encoder, to train on (`mmembed pretrain
            --data.audio-layers`).
        recogniser: Folder of an encoder that `mmembed pretrain` made, or its name on the Hugging
            Face hub: its recogniser finds the words, instead of that of the encoder. Public
            encoders have none.
        layers: Names of the layers to store; by default all. A wrong name lists all names.
        dtype: Type of the stored vectors.
        precision: Precision of the matrix products.
        format: Formats to write when the shards are complete, beside the webdataset shards.
        records_per_shard: Clips in one shard.
        batch_frames: Frames (25 a second) in one batch. Changes vectors only by rounding.
        error_budget: Fraction of clips that may fail before the command fails.
        timeout: Seconds after which a clip fails. For clips of more than 300 s this is the limit
            for each 12 s, with one more second for each 10 kB of the file and each 20 s decoded.
        max_seconds: Longest clip in seconds; by default four hours.
        face_model: YuNet's ONNX file, if the faces of the encoder were found with it.
        workers: Processes that decode; by default as many as processors, with a GPU one less.
            Changes no byte.
        dry_run: Check everything and write nothing: show what there is to do and what would fail.
        retry_failed: Make the shards again that list failed clips: for these reasons, such as
            "timeout", or for "any". The old ones stay until the new ones are whole.
        plan: Show what there is to do and what is done, shard by shard, and make nothing.
        shard: Make this shard alone, by its number in the plan.
        take: Make shards that no other process with this option is making, until all are there.
            What a process that died or was stopped had begun is taken over after a minute.
        ray: Make the shards on a running Ray cluster (pip install 'mmembed[ray]'): that of this
            address such as "10.0.0.1:6379", else of RAY_ADDRESS or of this machine, which is a node
            of it. All nodes see the folder in which the command is started, the inputs, the encoder
            and --out under the same paths. Each GPU, or each node without, gets a process with the
            encoder, which takes --workers CPUs, by default its share of the node. A shard whose
            process or node dies is made by another one.
        json: With --plan: print JSON.
        rank: Number of this process among `world` processes, from 0. By default as the environment
            of torchrun, SLURM, Open MPI, Kubernetes or AWS Batch says.
        world: Number of processes or machines that share the work.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    encoder: tuple[str, ...]
    out: Path
    streams: tuple[str, ...] = ("all",)
    granularity: tuple[Granularity, ...] = ("utterance",)
    recogniser: str | None = None
    layers: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    precision: Precision = "fp32"
    format: tuple[Format, ...] = ("webdataset",)
    records_per_shard: int = 512
    batch_frames: int = BATCH_FRAMES
    error_budget: float = 0.01
    timeout: float = TIMEOUT
    max_seconds: float = MAX_SECONDS
    face_model: Path | None = None
    workers: int | None = None
    dry_run: bool = False
    retry_failed: tuple[str, ...] = ()
    plan: bool = False
    shard: int | None = None
    take: bool = False
    ray: Address = None
    json: bool = False
    rank: int | None = None
    world: int | None = None
