"""Show on a web page what an encoder finds in a clip.

mmembed serve --encoder ENCODER --regressor runs/emotion --embeddings embeddings/audio+video

Open the address that the command prints and drop a clip on the page. The page shows the words and
their times, sentiment and emotions over time, the weights of the streams, and the nearest clips.
Everything is computed on this machine, nothing is sent elsewhere, and a clip is deleted as soon as
it is analysed.

By default only this machine can open the page. With --host others can open it too, without a
password: they can then send clips and see the nearest clips.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mmembed.data.media.fork_server import start_fork_server
from mmembed.errors import printable


@dataclass(frozen=True)
class Serve:
    """Settings of the page.

    Attributes:
        encoder: The folder of the encoder, or its name OWNER/NAME on the hub; several public
            ones as STREAM=NAME.
        regressor: The output folder of `mmembed finetune emotion` for embeddings of this encoder.
            Without it the page shows no sentiment and no emotions.
        embeddings: A folder of embeddings that this encoder made, of one stream subset, such as
            embeddings/audio+video. Without it the page shows no nearest clips.
        recogniser: The folder of an encoder that `mmembed pretrain` made, or its name on the hub.
            Its recogniser writes transcripts and finds words, instead of that of the encoder.
        face_model: The ONNX file of YuNet, if the faces for this encoder were found with it.
        port: The port to listen on. 0 takes any free port.
        host: The address to listen on, such as 0.0.0.0 for all addresses of this machine. By
            default only this machine can open the page.
    """

    encoder: tuple[str, ...]
    regressor: Path | None = None
    embeddings: Path | None = None
    recogniser: str | None = None
    face_model: Path | None = None
    port: int = 8000
    host: str = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> None:
    """Load, print the address, serve until stopped."""
    settings = tyro.cli(Serve, prog="mmembed serve", args=argv, description=__doc__)
    start_fork_server()
    from mmembed.embedder import Embedder
    from mmembed.embeddings.search import EmbeddingSearch
    from mmembed.serve.analysis import Analyser
    from mmembed.serve.server import Address, serve
    from mmembed.studies.emotion_predictor import EmotionPredictor

    address = Address(settings.host, settings.port)
    embedder = Embedder.from_pretrained(
        settings.encoder, face_model=settings.face_model, recogniser=settings.recogniser
    )
    predictor = settings.regressor and EmotionPredictor.from_folder(embedder, settings.regressor)
    search = settings.embeddings and EmbeddingSearch.open(settings.embeddings)

    name = " ".join(settings.encoder)

    def ready(url: str) -> None:
        print(f"{printable(name)} is at {url}   (Ctrl-C ends it)", flush=True)
        if not address.is_local:
            print(
                f"warning: everyone who can reach {settings.host} can send clips and see the "
                "nearest clips; there is no password and no encryption",
                file=sys.stderr,
                flush=True,
            )

    analyser = Analyser(embedder, predictor or None, search or None)
    about = {
        "encoder": name,
        "sha256": embedder.sha256,
        "regressor": predictor is not None,
        "trained_on": analyser.trained_on,
        "clips": len(search.embeddings) if search else 0,
    }
    try:
        serve(analyser, about, address, ready)
    finally:
        analyser.stop()
        embedder.close()
