"""Embed clips with a frozen encoder and write embedding shards.

Examples:
    mmembed extract clips/ --encoder runs/tiny/encoder --out embeddings
    mmembed extract "clips/**/*.mp4" --encoder runs/tiny/encoder --out embeddings --streams every
    torchrun --nproc-per-node 2 -m mmembed_export.extract corpus/shards --encoder E --out D

Inputs are media files, folders of them, wildcards in quotes, manifests (.jsonl, .parquet), tars in
the format of WebDataset, folders of prepared shards, http, https and s3 URLs of media files or of
such shards, and `-`, a list on standard input. Shards are plain webdataset tars: KEY.pooled.npy
(2 D,) and KEY.layers.npy (L, 2 D), or KEY.frames.npy (T, D), or KEY.words.npy (W, 2 D), and
KEY.json (streams used, seconds, speaker, split, labels, words).

The plan of shards depends on the inputs only, so any number of processes and machines can share the
work, in a folder or below a prefix of an object store (--out s3://bucket/prefix): by rank, each
shard by its number (--shard), as they come (--take), or on a cluster (--ray). The same command
again makes only the missing shards. The last process to finish writes manifest.json.
"""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from mmembed.commands.cli import leave, run_program
from mmembed.data.media.fork_server import start_fork_server
from mmembed.settings.extract import Extract


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then extract."""
    settings = tyro.cli(Extract, prog="mmembed extract", args=argv, description=__doc__)
    start_fork_server()
    from mmembed.embeddings.extract import extract  # torch takes seconds, and help needs none

    extract(settings)


if __name__ == "__main__":
    leave(run_program(main))
