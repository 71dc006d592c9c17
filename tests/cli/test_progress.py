"""Where the output is no terminal, lines say how far a verb is."""

from __future__ import annotations

import time

from alpamayo_r1.cli import progress
from alpamayo_r1.cli.progress import Clock, Meter, metered, spoken


def test_a_line_says_how_many_how_fast_and_how_long_still(monkeypatch):
    meter = Meter("evaluating", 644, "clips", done=2)
    monkeypatch.setattr(time, "monotonic", lambda: meter.began + 3.2)
    meter.advance(10, "minADE 0.5 m")
    assert meter.line() == "evaluating: 12 of 644 clips, 3.1 per second, 3 min left, minADE 0.5 m"


def test_lines_come_while_the_work_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY_S", 0.05)
    with metered(Meter("planning", 3, "clips")) as meter:
        time.sleep(0.12)
        meter.advance()
        time.sleep(0.12)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3 and lines[0].startswith("planning: 0 of 3 clips, 0 s so far") and "1 of 3 clips" in lines[-1]


def test_a_short_piece_of_work_says_nothing(capsys):
    with metered(Meter("planning", 3, "clips")) as meter:
        meter.advance(3)
    assert capsys.readouterr() == ("", "")


def test_a_time_budget_runs_by_itself(monkeypatch):
    meter = Clock("training", 540, "s")
    monkeypatch.setattr(time, "monotonic", lambda: meter.began + 120)
    assert meter.line() == "training: 2 min of 9 min"


def test_durations_are_spoken():
    assert [spoken(8.2), spoken(180), spoken(9000)] == ["8 s", "3 min", "2.5 h"]
