"""`mmembed serve` as it is started and stopped."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from helpers.encoders import write_encoder

from mmembed.commands.cli import run_program
from mmembed.commands.serve import main

PROGRAM = (
    "from mmembed.commands.cli import leave, run_program\n"
    "from mmembed.commands.serve import main\n"
    "leave(run_program(main))"
)


def start(encoder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "--encoder", str(encoder), "--port", "0", *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "MMEMBED_DEBUG": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    programs = [
        (start(encoder), signal.SIGINT, 130, "error: interrupted\n"),
        (
            start(encoder, "--host", "0.0.0.0", "--recogniser", str(encoder)),
            signal.SIGTERM,
            0,
            "warning: everyone who can reach",
        ),
    ]
    for program, number, code, told in programs:
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line.startswith(f"{encoder} is at http://")
        port = int(line.split("http://")[1].split("/")[0].split(":")[1])
        with urlopen(f"http://127.0.0.1:{port}/about", timeout=120) as answer:
            assert str(encoder) in answer.read().decode()
        program.send_signal(number)
        _, errors = program.communicate(timeout=120)
        assert program.returncode == code
        assert errors.startswith(told) and errors.count("\n") == 1


CLIP = bytes(500_000)
END = b"\r\n--x--\r\n"


def post(port: int, *more: str, field: str = 'name="clip"', missing: bytes = b"") -> bytes:
    """A request with a clip, without the bytes that are missing at its end."""
    host = f"127.0.0.1:{port}"
    part = f'--x\r\nContent-Disposition: form-data; {field}; filename="a.mp4"\r\n\r\n'
    body = part.encode() + CLIP + END
    lines = ["POST /analyses HTTP/1.1", f"Host: {host}", f"Origin: http://{host}",
             "Content-Type: multipart/form-data; boundary=x", f"Content-Length: {len(body)}",
             "Connection: close", *more, "", ""]  # fmt: skip
    return "\r\n".join(lines).encode() + body.removesuffix(missing)


def answer_to(port: int, sent: bytes) -> tuple[int, Any]:
    with socket.create_connection(("127.0.0.1", port), 120) as asking:
        with suppress(ConnectionError):  # it is refused before all of it is read
            asking.sendall(sent)
        told = b""
        with suppress(ConnectionError):
            while more := asking.recv(1 << 16):
                told += more
    first, _, body = told.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)


def nameless(pid: int, folder: Path) -> list[int]:
    """Sizes of the files of a folder that a process holds and that have no name."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(link.readlink()).startswith(str(folder)) and "(deleted)" in str(link.readlink()):
                found.append(link.stat().st_size)
    return found


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Sockets are made there, whose names have at most 107 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_full_disk_and_a_killed_server_leave_no_clip(tmp_path: Path, temporary: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    program = start(encoder, TMPDIR=str(temporary))
    assert program.stdout is not None and program.stderr is not None
    port = int(program.stdout.readline().split("http://127.0.0.1:")[1].split("/")[0])

    assert answer_to(port, post(port, "Content-Encoding: gzip"))[0] == 415
    assert answer_to(port, post(port, field='name="clip'))[0] == 400
    assert answer_to(port, b"nonsense\r\n\r\n")[0] == 400

    unlimited = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    status, told = answer_to(port, post(port))
    assert (status, told["error"].count("\n")) == (507, 0) and "File too large" in told["error"]
    assert program.stderr.readline().startswith("error: the server failed: OSError: ")
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, unlimited)
    status, told = answer_to(port, post(port))
    assert (status, told.get("reason")) == (422, "not_media"), told

    with socket.create_connection(("127.0.0.1", port), 120) as sending:
        sending.sendall(post(port, missing=END))
        while not any(size > 10_000 for size in nameless(program.pid, temporary)):
            time.sleep(0.01)
        program.kill()
        _, errors = program.communicate(timeout=120)
    assert errors == ""  # nor was there any before: no warning, no traceback
    assert [path for path in temporary.rglob("*") if path.is_file()] == []


def test_what_cannot_be_served_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = str(write_encoder(tmp_path / "encoder"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for code, line, arguments in (
            (2, f"port {port} of 127.0.0.1 is taken", [encoder, "--port", port]),
            (2, "cannot listen on port 99999", [encoder, "--port", "99999"]),
            (2, "there is no such folder", [str(tmp_path / "gone")]),
            (5, "holds no run of emotion", [encoder, "--regressor", str(tmp_path)]),
            (4, "no-vectors", [encoder, "--embeddings", str(tmp_path / "no-vectors")]),
        ):
            assert run_program(main, ["--encoder", *arguments]) == code
            told = capsys.readouterr()
            assert line in told.err and told.err.count("\n") == 1 and told.out == ""
