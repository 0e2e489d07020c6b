"""Write a frozen encoder as programs that run without mmembed.

Examples:
    mmembed export runs/tiny/encoder --format onnx --out exported/encoder.onnx
    mmembed export runs/tiny/encoder --format torch-export --out encoder.pt2 --streams audio+video
    mmembed export openai/whisper-base --format onnx --out whisper.onnx

There is one file for each stream subset, named after it: encoder.audio+video.onnx. Inputs are
features, padded to any length, and their lengths; those of a pretrained encoder are log-mel as
Whisper makes it, RGB face crops, and the tokens of its own tokenizer. wav2vec 2.0 and its kin
cannot be exported. The file itself describes its inputs: in ONNX under "mmembed" in the metadata of
the model, in the format of torch.export as the extra file "mmembed.json". Each program is run on
batches of other sizes than it was made with, and is written only if it agrees with the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mmembed.commands.cli import leave, run_program


@dataclass(frozen=True)
class Export:
    """What to write and how.

    Attributes:
        model: Folder of the frozen encoder, or its name on the Hugging Face hub: an encoder that
            mmembed trained, or a public one as it is; several public ones are STREAM=NAME each.
        format: Format of the programs. "onnx" needs the extra `onnx`.
        out: File to write. The stream subset is inserted before its suffix.
        streams: Stream subsets such as "audio+video"; "every" means each subset of those that
            the encoder reads.
        tolerance: Largest allowed difference from the encoder in pooled, frames and layers,
            relative for numbers above 1.
    """

    model: tyro.conf.Positional[tuple[str, ...]]
    format: Literal["torch-export", "onnx"]
    out: Path
    streams: tuple[str, ...] = ("every",)
    tolerance: float = 1e-4


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, then export."""
    settings = tyro.cli(Export, prog="mmembed export", args=argv, description=__doc__)
    from mmembed.embedder.programs import export_programs  # torch takes seconds

    export_programs(
        settings.model, settings.format, settings.out, settings.streams, settings.tolerance
    )


if __name__ == "__main__":
    leave(run_program(main))
