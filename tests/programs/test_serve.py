"""`mmembed serve` as it is started and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest
from encoders import write_encoder

from mmembed.commands.cli import run_program
from mmembed.commands.serve import main

PROGRAM = (
    "from mmembed.commands.cli import leave, run_program\n"
    "from mmembed.commands.serve import main\n"
    "leave(run_program(main))"
)


def start(encoder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, "--encoder", str(encoder), "--port", "0", *arguments]
    environment = {**os.environ, "MMEMBED_DEBUG": ""}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so do its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def test_it_serves_until_it_is_stopped(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    programs = [
        (start(encoder), signal.SIGINT, 130, "error: interrupted\n"),
        (start(encoder, "--host", "0.0.0.0"), signal.SIGTERM, 0, "warning: whoever reaches"),
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
            (5, "holds no trained regressor", [encoder, "--regressor", str(tmp_path)]),
            (4, "no-vectors", [encoder, "--embeddings", str(tmp_path / "no-vectors")]),
        ):
            assert run_program(main, ["--encoder", *arguments]) == code
            told = capsys.readouterr()
            assert line in told.err and told.err.count("\n") == 1 and told.out == ""
