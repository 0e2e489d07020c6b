import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmembed.commands.cli import SUMMARIES, dispatch, run_program
from mmembed.errors import BudgetError, CorruptError, DataError, MmembedError, Stopped, UsageError


def mmembed(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmembed.commands.cli", *arguments]
    environment = {**os.environ, "MMEMBED_DEBUG": "", **variables}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def raising(error):
    def main(argv):
        raise error

    return main


def test_help_lists_every_command_with_a_line(capsys):
    for argv in ([], ["-h"], ["--help"]):
        dispatch(argv)
        listed = capsys.readouterr().out
        for name, summary in SUMMARIES.items():
            assert f"  {name:<10} {summary}\n" in listed


def test_help_imports_no_heavy_library():
    script = (
        "import sys; from mmembed.commands.cli import dispatch; dispatch(['--help']);"
        "print(sorted({'torch', 'tyro', 'rich', 'numpy', 'cv2', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_and_unknown_command():
    assert mmembed("--version").stdout.startswith("mmembed 0.")
    unknown = mmembed("pretrian")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: mmembed has no command 'pretrian'; use one of ")
    assert unknown.stderr.endswith("; did you mean pretrain?\n")
    assert unknown.stderr.count("\n") == 1


def test_a_command_gets_its_own_arguments_and_help():
    done = mmembed("doctor", "--help")
    assert done.returncode == 0
    assert "usage: mmembed doctor" in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MmembedError("odd"), 1),
        (UsageError("no such thing"), 2),
        (BudgetError("too many"), 3),
        (DataError("a.mp4", "empty", "is empty"), 4),
        (CorruptError("shard"), 5),
        (Stopped("run again"), 75),
        (OSError(errno.EIO, "Input/output error", "a.tar"), 74),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.tar"), 74),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_their_exit_code(error, code, capsys):
    assert run_program(raising(error), []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {str(error) or 'interrupted'}\n"


def test_a_message_of_several_lines_becomes_one(capsys):
    run_program(raising(UsageError("first\n  second")), [])
    assert capsys.readouterr().err == "error: first second\n"


def test_control_characters_of_a_message_are_shown_and_not_obeyed(capsys):
    run_program(raising(UsageError("key \x1b[2Jk\u00fc\ud800")), [])
    assert capsys.readouterr().err == "error: key \\x1b[2Jk\u00fc\\ud800\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_so(capsys):
    def main(argv):
        with open("/dev/full", "w") as file:
            file.write("x")

    assert run_program(main, []) == 74
    assert "No space left on device; free some space" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose_shows_where_and_is_hidden_from_the_program(flag, capsys):
    seen = []

    def main(argv):
        seen.extend(argv)
        raise UsageError("bad")

    assert run_program(main, ["a", flag, "b"]) == 2
    assert seen == ["a", "b"]
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("error: bad\n")


def test_debug_variable_shows_where():
    assert "Traceback" in mmembed("pretrian", MMEMBED_DEBUG="1").stderr
    assert "Traceback" not in mmembed("pretrian").stderr


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_program(raising(ZeroDivisionError()), [])


def test_success_returns_0():
    assert run_program(lambda argv: None, []) == 0


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m mmembed.commands.cli --help | true; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_no_error_that_a_program_could_catch(number, capsys):
    before = signal.getsignal(number)

    def main(argv):
        try:
            os.kill(os.getpid(), number)
        except Exception as error:
            raise CorruptError(f"folder: {error}") from error

    assert run_program(main, []) == 75
    said = capsys.readouterr().err
    assert said.startswith(f"error: stopped by {number.name}; the same command again")
    assert signal.getsignal(number) is before
