"""Runs a program many times in processes of its own, imported once:
`python forker.py PROGRAM [BODY]`.

Each line on stdin is a request:

    {"runs": [argv, ...], "cwd": ..., "stdin": text, "env": {...}, "largest_file": bytes,
     "imports": [what the server imports first, once for all runs],
     "ranks": so many processes of each run, which find each other as those of torchrun do,
     "kill": {"folder": of shards, "shards": that it has got more, "seconds": after that},
     "inject": [{"at": "module:function", "call": which one of it, "file": part of the name of the
                 file it is called with, "signal": number or "errno": number}, ...]}

All runs begin together, each in a fork. The answer is a line with [exit code or -signal, what it
said] of each. "program" is the module BODY that the program imports when it has read its options,
else the program itself; a signal comes, or an error of the system is raised, just before the call.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn


class Forker:
    """The side of the tests."""

    def __init__(self, program: Path, body: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(program), *filter(None, [body])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, *runs: list[str], **request: Any) -> list[tuple[int, str]]:
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"runs": runs, **request}), file=self._process.stdin, flush=True)
        return [(code, said) for code, said in json.loads(self._process.stdout.readline())]

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)


def serve(program: str, body: str = "") -> None:
    spec = importlib.util.spec_from_file_location("program", program)
    assert spec and spec.loader
    module = sys.modules["program"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if body:
        sys.modules["program"] = importlib.import_module(body)
    # Decoding processes of all runs come from one server, which imports torch once.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["mmembed.data.media.pool"])
    forkserver.ensure_running()
    for line in sys.stdin:
        request = json.loads(line)
        for name in request.get("imports", ()):
            importlib.import_module(name)
        begun = []
        for argv in request["runs"]:
            for world in worlds(request.get("ranks", 1)):
                said = tempfile.TemporaryFile("w+")  # noqa: SIM115
                if not (pid := os.fork()):
                    os.environ.update(world)
                    run(module.main, argv, said.fileno(), request)
                begun.append((pid, said))
        if (kill := request.get("kill")) is not None:
            wait_for_shards(kill["folder"], kill["shards"], [pid for pid, _ in begun])
            time.sleep(kill["seconds"])
            for pid, _ in begun:
                os.kill(pid, signal.SIGKILL)  # one that has ended is still there to be waited for
        answers = []
        for pid, said in begun:
            _, status = os.waitpid(pid, 0)
            said.seek(0)
            answers.append([os.waitstatus_to_exitcode(status), said.read()])
        print(json.dumps(answers), flush=True)


def worlds(size: int) -> list[dict[str, str]]:
    """What torchrun sets for each rank; nothing for one alone."""
    if size == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    same = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**same, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def wait_for_shards(folder: str, more: int, runs: list[int]) -> None:
    """Until a folder has so many shards more than now, or a run has ended."""

    def count() -> int:
        return sum(1 for _ in Path(folder).rglob("shard-*.json"))

    def at_work(pid: int) -> bool:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    wanted = count() + more
    while count() < wanted and all(map(at_work, runs)):
        time.sleep(0.002)


def run(main: Any, argv: list[str], said: int, request: dict[str, Any]) -> NoReturn:
    """What a fork does."""
    from mmembed.commands.cli import run_program

    code = 99
    try:
        forkserver.ensure_running = lambda: None  # it is not ours to wait for
        forkserver._forkserver.ensure_running = forkserver.ensure_running
        os.chdir(request["cwd"])
        os.environ.update(request.get("env") or {})
        reads, writes = os.pipe()
        os.write(writes, (request.get("stdin") or "").encode())
        os.close(writes)
        for target, source in enumerate((reads, said, said)):
            os.dup2(source, target)
        sys.stdin = open(0)  # noqa: SIM115
        if (most := request.get("largest_file")) is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for injected in request.get("inject") or ():
            inject(**injected)
        code = run_program(main, argv)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def inject(at: str, call: int = 1, file: str = "", signal: int = 0, errno: int = 0) -> None:
    """Make something happen at a call of a function."""
    module, _, name = at.partition(":")
    original, calls = getattr(sys.modules[module], name), 0

    def wrapper(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        if not file or file in os.readlink(f"/proc/self/fd/{arguments[0]}"):
            calls += 1
            if calls == call and errno:
                raise OSError(errno, os.strerror(errno))
            if calls == call:
                os.kill(os.getpid(), signal)
        return original(*arguments, **settings)

    setattr(sys.modules[module], name, wrapper)


if __name__ == "__main__":
    serve(*sys.argv[1:])
