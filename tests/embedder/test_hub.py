"""A user's script from end to end: one line to a vector, up to a hub and back.

The hub is a server on this machine that speaks as much of its language as huggingface_hub needs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import soundfile
from helpers.clips import tone
from helpers.encoders import write_encoder, write_on_pretrained

from mmembed import Embedder
from mmembed.errors import UsageError

SCRIPT = """
import sys
import mmembed
assert "torch" not in sys.modules, "import mmembed is not quick"
from mmembed import Embedder
folder, clip = sys.argv[1:]
embedder = Embedder.from_pretrained(folder)
first = embedder(clip).pooled  # no guard of __main__: the decoder must not need one
assert "transformers" in sys.modules or "huggingface_hub" not in sys.modules
embedder.push_to_hub("someone/small")
again = Embedder.from_pretrained("someone/small")
assert (again(clip).pooled == first).all() and again.sha256 == embedder.sha256
try:
    Embedder.from_pretrained("someone/other")
except mmembed.errors.UsageError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """One repository, `someone/small`, that begins with a file of somebody else."""

    files: dict[str, bytes]
    made: list[object]
    protocol_version = "HTTP/1.1"
    REPO, COMMIT = "someone/small", "c" * 40

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def _url(self) -> str:
        return f"http://{self.headers['Host']}/{self.REPO}"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        prefix = f"/{self.REPO}/resolve/"
        if path.startswith(prefix) and path.rpartition("/")[2] in self.files:
            data = self.files[path.rpartition("/")[2]]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            self._answer(200, data, ETag=tag, X_Repo_Commit=self.COMMIT)
        elif path.startswith(f"/api/models/{self.REPO}/tree/"):
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in self.files.items()
            ]
            self._json(listed)
        elif path.startswith(f"/api/models/{self.REPO}"):
            siblings = [{"rfilename": name} for name in self.files]
            self._json({"id": self.REPO, "sha": self.COMMIT, "siblings": siblings})
        else:
            self._answer(404, b"{}", X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self._json({"url": self._url(), "id": self.REPO, "name": self.REPO})
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            answers = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in asked
            ]
            self._json({"files": answers})
        else:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del self.files[value["path"]]
            self._json({"commitUrl": f"{self._url()}/commit/1", "commitOid": self.COMMIT})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], str]]:
    held = type("Held", (Hub,), {"files": {"stale.bin": b"old"}, "made": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), held)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield held, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_script_embeds_and_shares(
    hub: tuple[type[Hub], str], tmp_path: Path, pretrained: bool
) -> None:
    held, address = hub
    if pretrained:
        folder = write_on_pretrained(tmp_path, "whisper", "vit", "bert")
    else:
        folder = write_encoder(tmp_path / "encoder")
    soundfile.write(tmp_path / "clip.wav", tone(0.5), 16_000)
    (tmp_path / "script.py").write_text(SCRIPT)
    settings = {
        "HF_ENDPOINT": address, "HF_TOKEN": "hf_made_up", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", folder, tmp_path / "clip.wav"],
        cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True,
        timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 1 and said[0].startswith("someone/other: neither a folder here nor to be")
    assert held.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(held.made) == 1 and "private" in json.dumps(held.made[0])


def test_without_a_network_it_ends_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def unknown(host: str, *_: object) -> None:
        asked.append(host)
        raise OSError("Name or service not known")

    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=r"its cache has none, and there is no way to https?://"):
        Embedder.from_pretrained("someone/nothing")
    assert len(asked) == 1  # not again and again
