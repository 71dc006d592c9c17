"""Listing clips, and naming one by the beginning of its id."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import alpamayo_r1
from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.data.errors import DataError
from alpamayo_r1.data.listing import beginnings


def test_clips_are_listed_with_their_times_families_and_words():
    done = CliRunner().invoke(app, ["clips", "--json"])
    rows = json.loads(done.stdout)
    source = alpamayo_r1.open_source("sample")
    assert done.exit_code == 0 and [row["clip_id"] for row in rows] == list(source.clip_ids)
    assert rows[0]["short"] == rows[0]["clip_id"][:8] and rows[0]["first"] < 5.1 < rows[0]["last"]
    assert rows[0]["family"] == "nudge_left" and rows[0]["text"].startswith("Nudge to the left")


def test_only_matching_clips_are_listed():
    done = CliRunner().invoke(app, ["clips", "--match", "RED_LIGHT"])
    lines = done.stdout.splitlines()
    assert len(lines) >= 2 and all("red_light" in line for line in lines[1:])
    nothing = CliRunner().invoke(app, ["clips", "--match", "elephant"])
    assert nothing.exit_code == 1 and "0 of 0 clips" in nothing.stderr


def test_the_shortest_beginning_names_one_clip():
    ids = ["abcdefghi1", "abcdefghi2", "abcdefgh", "zzzzzzzzzzz"]
    assert beginnings(ids) == ["abcdefghi1", "abcdefghi2", "abcdefgh", "zzzzzzzz"]


def test_a_clip_is_found_by_a_beginning_that_fits_no_other():
    source = alpamayo_r1.open_source("sample")
    first = source.clip_ids[0]
    assert source.find(first) == source.find(first[:8]) == first
    for nothing in ("", "../..", "x", first + "0"):
        with pytest.raises(DataError):
            source.find(nothing)
