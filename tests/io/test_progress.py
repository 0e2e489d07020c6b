import pytest

from mmembed.io import progress as module
from mmembed.io.progress import describe, duration, progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (187, "3:07"), (3600, "1:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_estimate_goes_on_at_the_rate_so_far():
    # 30 of 120 in 65 s leaves 90 for 3 x 65 s = 3:15.
    assert describe(30, 120, {}, seconds=65) == "30/120  1:05 so far, 3:15 to go"


def test_the_estimate_leaves_out_what_an_earlier_run_did():
    # 10 in 65 s leaves 90 for 9 x 65 s = 9:45.
    assert describe(30, 120, {}, seconds=65, start=20) == "30/120  1:05 so far, 9:45 to go"


def test_no_estimate_at_the_start_and_at_the_end():
    assert describe(20, 120, {}, seconds=0, start=20) == "20/120  0:00 so far"
    assert describe(120, 120, {}, seconds=65) == "120/120  1:05 so far"


def test_figures_and_fractions():
    status = describe(1.25, 4, {"loss": 1.23456, "wer": 0.5}, seconds=1)
    assert status == "1.2/4  loss=1.235  wer=0.5  0:01 so far, 0:02 to go"


def test_plain_lines_off_a_terminal(capsys):
    with progress("count", 100) as update:
        for done in range(100):
            update(done + 1, loss=100 - done)
    captured = capsys.readouterr()
    assert captured.err == "count 100/100  loss=1  0:00 so far\n"
    assert captured.out == ""


def test_lines_come_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_EVERY", 0.0)
    with progress("count", 3) as update:
        for done in range(3):
            update(done + 1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]


def test_an_error_leaves_a_line_saying_how_far_it_got(capsys):
    with pytest.raises(ValueError, match="bad"), progress("count", 3) as update:
        update(1)
        raise ValueError("bad")
    assert capsys.readouterr().err.startswith("count 1/3")


def test_shows_nothing_when_told(capsys):
    with progress("count", 3, show=False) as update:
        update(1, loss=2.0)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
