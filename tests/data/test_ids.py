"""Clip ids: safe as names of files, found by their beginning."""

from types import SimpleNamespace

import pandas as pd
import pytest

from alpamayo_r1.data.errors import BadClipId, UnknownClip
from alpamayo_r1.data.ids import check_clip_id, check_clip_ids
from alpamayo_r1.data.origin import Origin
from alpamayo_r1.data.source import Source, open_source

GOOD = ["030c760c-ae38-49aa-9ad8-f5650a545d26", "drive_2024.11.03", "Straße 7", "clip 1", "a"]
BAD = [
       "../../escaped", "/etc/passwd", "a/b", "a\\b", "..", ".", "a..b", "", "  ", "a\nb", "a\0b", "\x1b[2J", "C:x", "x" * 129,
       "CON", "nul.tar",
       ".hidden", "-rf", "end.", "end ", "a\u202eb", "a*", "a?", 'a"b', 5, None, float("nan")]  # fmt: skip


@pytest.mark.parametrize("clip_id", GOOD)
def test_names_that_people_give_pass(clip_id):
    assert check_clip_id(clip_id) == clip_id


@pytest.mark.parametrize("clip_id", BAD, ids=ascii)
def test_what_is_no_safe_file_name_is_refused(clip_id):
    with pytest.raises(BadClipId, match=r"expected(.|\n)*what to do"):
        check_clip_id(clip_id)


@pytest.mark.parametrize("twice", [["a", "b", "a"], ["Clip", "clip"]])
def test_an_id_that_two_files_would_share_is_refused(twice):
    with pytest.raises(BadClipId, match="twice"):
        check_clip_ids(twice)


def source_of(*ids: str) -> Source:
    return Source(Origin(SimpleNamespace(clip_index=pd.DataFrame(index=list(ids))), "a list", "world"))  # pyright: ignore


def test_a_clip_is_found_by_a_beginning_that_is_its_own():
    source = source_of("abc1", "abc2", "abcd", "b", "bb")
    assert [source.find(p) for p in ("abc1", "ABCD", "b")] == ["abc1", "abcd", "b"]
    with pytest.raises(UnknownClip, match=r"begins 3 of the 5 ids(.|\n)*abc1, abc2, abcd"):
        source.find("abc")
    with pytest.raises(UnknownClip, match="no clip"):
        source.find("c")
    with pytest.raises(UnknownClip, match="no clip"):
        source.find("../abc")


def test_an_index_with_an_unsafe_id_is_refused_whole():
    with pytest.raises(BadClipId, match="escaped"):
        source_of("a", "../../escaped").find("a")


def test_the_bundled_clips_are_found_by_eight_characters():
    with open_source("sample") as source:
        assert {source.find(clip_id[:8]) for clip_id in source.clip_ids} == set(source.clip_ids)
