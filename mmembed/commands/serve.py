"""A page that shows what an encoder hears and sees in a clip.

mmembed serve --encoder ENCODER --regressor runs/emotion --embeddings embeddings/audio+video

Open the address that it prints and drop a clip: its words and when they are said, sentiment and
emotions over time, the weights of the streams, the clips nearest to it. All is computed here;
nothing is sent elsewhere, and a clip is deleted once it has been looked at.

Only this machine is served. With --host others are as well, who need no password: they may then
send clips and see the clips nearby.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mmembed.errors import UsageError, printable


@dataclass(frozen=True)
class Serve:
    """With what, and where.

    Attributes:
        encoder: its folder, or OWNER/NAME on the hub.
        regressor: what `mmembed finetune emotion` wrote for embeddings of this encoder; without it
            there are no sentiment and emotions.
        embeddings: a folder of embeddings that this encoder made, of one stream subset; without it
            there are no clips nearby.
        face_model: YuNet's ONNX file, where the encoder's faces were found with it.
        port: 0 takes any that is free.
        host: address to listen on; one that others can reach has to be given.
    """

    encoder: str
    regressor: Path | None = None
    embeddings: Path | None = None
    face_model: Path | None = None
    port: int = 8000
    host: str = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> None:
    """Load, print the address, serve until stopped."""
    settings = tyro.cli(Serve, prog="mmembed serve", args=argv, description=__doc__)
    try:
        from mmembed.serve.server import Address, serve
    except ImportError as error:
        raise UsageError(f"serve: needs pip install 'mmembed[serve]' ({error})") from None
    from mmembed.data.media.pool import Decoder
    from mmembed.embedder import Embedder
    from mmembed.embeddings.search import EmbeddingSearch
    from mmembed.serve.analysis import Analyser
    from mmembed.studies.emotion_predictor import EmotionPredictor

    address = Address(settings.host, settings.port)
    embedder = Embedder.from_pretrained(settings.encoder, face_model=settings.face_model)
    predictor = settings.regressor and EmotionPredictor.from_folder(embedder, settings.regressor)
    search = settings.embeddings and EmbeddingSearch.open(settings.embeddings)
    about = {
        "encoder": settings.encoder,
        "sha256": embedder.sha256,
        "regressor": predictor is not None,
        "trained_on": {
            **({"regressor": predictor.trained_on} if predictor else {}),
            "encoder": embedder.trained_on,
        },
        "clips": len(search.embeddings) if search else 0,
    }

    def ready(url: str) -> None:
        print(f"{printable(settings.encoder)} is at {url}   (Ctrl-C ends it)", flush=True)
        if not address.is_local:
            print(
                f"warning: whoever reaches {settings.host} may send clips and see the clips "
                "nearby; there is no password and no encryption",
                file=sys.stderr,
                flush=True,
            )

    with Decoder() as decoder:
        analyser = Analyser(embedder, decoder, predictor or None, search or None)
        try:
            serve(analyser, about, address, ready)
        finally:
            analyser.stop()
