"""The command `mmembed VERB`, and how every program here ends.

The verbs are entry points of the group "mmembed.verbs"; a verb is imported when it is called and
not before, so that help comes at once.
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

from mmembed.errors import MmembedError, Stopped, UsageError, printable

Program: TypeAlias = Callable[[list[str]], None]

SUMMARIES: Final[Mapping[str, str]] = {
    "demo": "the whole idea on clips made here: corpus, training, embeddings, report",
    "prepare": "turn a corpus into shards ready for training",
    "inspect": "what a manifest, prepared shards or embeddings hold",
    "verify": "check them, every byte and every record",
    "convert": "turn a pickle or .csd file into safetensors and a manifest",
    "pretrain": "train an encoder on speech recognition and speakers",
    "extract": "run a frozen encoder over clips and write embedding shards",
    "search": "the clips nearest to a clip, a text or a key, among embeddings",
    "serve": "a page on this machine that shows what the encoder hears and sees in a clip",
    "export": "write a frozen encoder as ONNX or torch.export programs",
    "finetune": "train and score emotion models on embeddings, features or texts",
    "probe": "score frozen embeddings by linear probes over unseen speakers",
    "compare": "methods of several runs side by side, with paired differences",
    "predict": "sentiment and emotions of clips, any emotions of texts",
    "report": "one self-contained HTML page about a run",
    "doctor": "check this installation and say what mends it",
}
"""In the order of the work. A verb that another package adds is listed with its module instead."""

USAGE: Final = """\
usage: mmembed VERB [ARGUMENT ...]

Embeddings of people talking, from sound, face video and words.

verbs:
{verbs}

options:
  -h, --help     this text; `mmembed VERB --help` explains a verb
  -v, --verbose  after a verb: show where in the code an error arose
  --version      the version of mmembed
"""

EXTRAS: Final[Mapping[str, str]] = {
    "demo": "demo",
    "talkers": "demo",
    "pretrain": "train",
    "finetune": "studies",
    "probe": "studies",
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
    "sklearn": "studies",
}
"""Command or module -> the extra of this package that installs what it needs."""

STOPPING: Final = (signal.SIGTERM, signal.SIGUSR1)

IO_ERROR: Final = 74
INTERRUPTED: Final = 130


def main(argv: list[str] | None = None) -> None:
    """The console script: run one verb, then exit with its code."""
    leave(run_program(dispatch, argv))


def dispatch(arguments: list[str]) -> None:
    """Run one verb.

    Args:
        arguments: the verb and its arguments.

    Raises:
        UsageError: if there is no such verb.
    """
    verbs = {entry.name: entry for entry in entry_points(group="mmembed.verbs")}
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(verbs=_list_verbs(verbs)), end="")
    elif arguments[0] == "--version":
        print(f"mmembed {version('mmembed')}")
    elif arguments[0] in verbs:
        run: Program = verbs[arguments[0]].load()
        run(arguments[1:])
    else:
        raise UsageError(f"mmembed has no verb {arguments[0]!r}; one of {', '.join(verbs)}")


def leave(code: int) -> NoReturn:
    """End this process with an exit code; under torchrun, without tearing libraries down.

    Threads of libraries end in no particular order, and now and then one of them aborts a process
    that has written all it had to ("terminate called without an active exception"); torchrun then
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
        The exit code, see `mmembed.errors`. Errors that are nobody's but ours go through.
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
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        hint = "; free some space and run again" if error.errno == errno.ENOSPC else ""
        return _fail(f"{error}{hint}", IO_ERROR, verbose)
    return 0


class _Signalled(BaseException):
    """Like KeyboardInterrupt no error: a handler of errors does not catch it."""


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


def _list_verbs(verbs: Mapping[str, EntryPoint]) -> str:
    order = [*(name for name in SUMMARIES if name in verbs), *sorted(set(verbs) - set(SUMMARIES))]
    return "\n".join(f"  {name:<10} {SUMMARIES.get(name, verbs[name].value)}" for name in order)


if __name__ == "__main__":
    main()
