"""The program `mmembed COMMAND`, and how every program here ends.

The commands are entry points of the group "mmembed.commands". A command is imported when it is
called, so that help appears at once.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import EntryPoint, entry_points, version
from io import TextIOWrapper
from types import FrameType
from typing import Final, NoReturn, TypeAlias

from mmembed.errors import MmembedError, Stopped, UsageError, meant, printable

Program: TypeAlias = Callable[[list[str]], None]

SUMMARIES: Final[Mapping[str, str]] = {
    "demo": "run the whole pipeline on synthetic clips: corpus, training, embeddings, report",
    "prepare": "turn a corpus into shards ready for training",
    "inspect": "summarise a manifest, prepared shards or embeddings",
    "verify": "check every byte and every record of them",
    "convert": "convert a pickle or .csd file to safetensors and a manifest",
    "pretrain": "train an encoder on speech recognition and speaker classification",
    "extract": "embed clips with a frozen encoder and write embedding shards",
    "search": "find the embeddings nearest to a clip, a text or a key",
    "serve": "serve a page on this machine that shows the analysis of a clip",
    "export": "write a frozen encoder as ONNX or torch.export programs",
    "finetune": "train and score emotion models on embeddings, features or texts",
    "probe": "score embeddings by linear probes on unseen speakers",
    "evaluate": "score embeddings by standard protocols, and tell where these leak",
    "compare": "compare the methods of several runs, with paired differences",
    "predict": "predict sentiment and emotions of clips, or any emotions of texts",
    "replay": "run a finished run again and compare every figure",
    "report": "write one self-contained HTML page about a run",
    "doctor": "check this installation and print how to fix it",
}
"""In the order of the work. A command of another package is listed with its module instead."""

USAGE: Final = """\
usage: mmembed COMMAND [ARGUMENT ...]

Embeddings of people talking on video, from audio, face video and text.

commands:
{commands}

options:
  -h, --help     show this text; `mmembed COMMAND --help` explains a command
  -v, --verbose  after a command: show where in the code an error occurred
  --version      show the version of mmembed

example: mmembed predict clip.mp4 --run demo
"""

EXTRAS: Final[Mapping[str, str]] = {
    "demo": "demo",
    "talkers": "demo",
    "pretrain": "train",
    "finetune": "studies",
    "probe": "studies",
    "evaluate": "studies",
    "predict": "studies",
    "compare": "report",
    "report": "report",
    "serve": "serve",
    # Of modules, where it depends on the options whether a command needs one.
    "espeakng_loader": "demo",
    "h5py": "corpora",
    "jinja2": "report",
    "jiwer": "train",
    "matplotlib": "report",
    "ray": "ray",
    "sklearn": "studies",
}
"""Command or module -> the extra of this package that installs what it needs."""

STOPPING: Final = (signal.SIGTERM, signal.SIGUSR1)

IO_ERROR: Final = 74
INTERRUPTED: Final = 130


def main(argv: list[str] | None = None) -> None:
    """The console script: run one command, then exit with its code."""
    leave(run_program(dispatch, argv))


def dispatch(arguments: list[str]) -> None:
    """Run one command.

    Args:
        arguments: the command and its arguments.

    Raises:
        UsageError: there is no such command.
    """
    commands = {entry.name: entry for entry in entry_points(group="mmembed.commands")}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(commands=_list_commands(commands)), end="")
    elif arguments[0] == "--version":
        print(f"mmembed {version('mmembed')}")
    elif arguments[0] in commands:
        run: Program = commands[arguments[0]].load()
        run(arguments[1:])
    else:
        raise UsageError(
            f"mmembed has no command {arguments[0]!r}; use one of {', '.join(commands)}"
            f"{meant(arguments[0], commands)}"
        )


def leave(code: int) -> NoReturn:
    """End this process with an exit code; under torchrun, without tearing libraries down.

    Threads of libraries end in no particular order, and now and then one of them aborts a process
    that has written all its output ("terminate called without an active exception"); torchrun then
    stops the others and calls the run failed.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run_program(main: Program, argv: list[str] | None = None) -> int:
    """Run a program and turn what stops it into one line on stderr and an exit code.

    A traceback comes before that line when the arguments hold -v or --verbose, which `main` does
    not see, or when the environment variable MMEMBED_DEBUG is 1.

    Args:
        main: takes the arguments without the program's name.
        argv: those arguments; None takes them from the command line.

    Returns:
        The exit code, see `mmembed.errors`. Errors of our own code are raised.
    """
    given = sys.argv[1:] if argv is None else argv
    arguments = [argument for argument in given if argument not in ("-v", "--verbose")]
    verbose = len(arguments) < len(given) or os.environ.get("MMEMBED_DEBUG") == "1"
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be no text
            is_read = stream is sys.stdin
            stream.reconfigure(errors="surrogateescape" if is_read else "backslashreplace")
    try:
        with _stoppable():
            main(arguments)
            sys.stdout.flush()
    except MmembedError as error:
        return _fail(str(error), error.exit_code, verbose)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(arguments[0] if arguments else "") or EXTRAS.get(error.name or "")
        if extra is None or (error.name or "").startswith("mmembed"):
            raise
        message = f"needs pip install 'mmembed[{extra}]' or 'mmembed[all]' ({error})"
        return _fail(message, UsageError.exit_code, verbose)
    except _Signalled as signalled:
        return _fail(str(signalled), Stopped.exit_code, verbose)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, verbose)
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        hint = "; free some space and run again" if error.errno == errno.ENOSPC else ""
        return _fail(f"{error}{hint}", IO_ERROR, verbose)
    return 0


class _Signalled(BaseException):
    """Not an error, as KeyboardInterrupt: handlers of errors do not catch it."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end the block by `_Signalled`, so that what is half done is cleaned up; a
    second one ends the process at once. A program may set handlers of its own later.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    owner = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a child that was forked meanwhile
            os.kill(os.getpid(), number)
        else:
            name = signal.Signals(number).name
            raise _Signalled(f"stopped by {name}; the same command again goes on from here")

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return code


def _list_commands(commands: Mapping[str, EntryPoint]) -> str:
    known = [name for name in SUMMARIES if name in commands]
    order = [*known, *sorted(set(commands) - set(known))]
    return "\n".join(f"  {name:<10} {SUMMARIES.get(name, commands[name].value)}" for name in order)


if __name__ == "__main__":
    main()
