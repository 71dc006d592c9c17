"""Words with drafts: sooner, and to the bit what they are without."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.engine import drafts, words
from alpamayo_r1.engine.arena import STATE
from alpamayo_r1.engine.drafts import Table, guesses
from alpamayo_r1.engine.words import Rules, accept
from alpamayo_r1.planner import Planner
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

RULES = Rules(blocked=torch.zeros(10, dtype=torch.bool), end=7, eos=8, pad=9)


@pytest.fixture(scope="module")
def planner():
    return Planner.of(*load_checkpoint(SMALL, dtype=torch.float32), fast=True)


@pytest.fixture(scope="module")
def observation():
    (sample,) = sample_batch(simulate([850_004], seconds=5.2), 51, width=224, height=126, supersample=1)
    return sample.observation


OPTIONS = {
    "one": {},
    "three": {"samples": 3, "temperature": 1.3},
    "cut off": {"max_tokens": 4, "samples": 2},
    "given": {"reasoning": "Keep the lane", "samples": 2},
}


def everything(planner, observation, **options):
    """Tokens, actions and the keys that the actions saw."""
    plan = planner.plan(observation, seed=3, steps=2, **options)
    buffers = planner.engine.arena.view(1, len(plan.tokens))
    seen = buffers.said.length - 1 + buffers.said.ended
    keys = [layer[0][r, :, : int(n)].clone() for layer in buffers.suffix for r, n in enumerate(seen)]
    return plan, keys


def wrong_at(place):
    def guess(said, count, table, uniform, last=(), stop=()):
        right = list(last[len(said) : len(said) + count])
        return [token + (len(said) + i == place) for i, token in enumerate(right)]

    return guess


@pytest.fixture(scope="module", params=OPTIONS)
def without_drafts(request, planner, observation):
    """Options, and everything of their plan without drafts."""
    options = OPTIONS[request.param]
    return options, *everything(planner, observation, drafts=False, **options)


SOURCES = {
    "from the table": guesses,
    "none": lambda said, count, *rest: [],
    "random": lambda said, count, *rest: random.Random(len(said)).choices(range(500), k=count),
    "padding": lambda said, count, *rest: [0] * count,
    "too many": lambda said, count, table, uniform, last=(), stop=(): (list(last[len(said) :]) + [1] * 40)[:count],
    **{f"wrong at {place}": wrong_at(place) for place in (0, 1, 3, 6)},
}


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.filterwarnings("ignore:.*ended without")
def test_drafts_change_no_bit(planner, observation, source, without_drafts, monkeypatch):
    options, want, keys = without_drafts
    follow = [list(row) for row in want.tokens]
    made = words.Drafting.__init__

    def know(self, how, rules, buffers, rows, table, last):
        made(self, how, rules, buffers, rows, table, last or follow)

    monkeypatch.setattr(words.Drafting, "__init__", know)
    monkeypatch.setattr(words, "guesses", SOURCES[source])
    got, mine = everything(planner, observation, **options)
    assert got.tokens == want.tokens and got.ended == want.ended
    assert torch.equal(got.actions, want.actions) and torch.equal(got.xyz, want.xyz)
    assert all(torch.equal(a, b) for a, b in zip(keys, mine, strict=True))
    if source == "none" and all(got.ended):
        assert got.passes == want.passes
    if source == "from the table" and "max_tokens" not in options:
        assert got.passes <= 2 < want.passes


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"top_k": 3, "samples": 2}, {"temperature": 0.0}, {"samples": 6}], ids=["top-k", "greedy", "six"])
def test_plans_in_a_row_say_the_same_in_fewer_passes(planner, observation, options):
    want = planner.plan(observation, seed=5, steps=2, drafts=False, **options)
    first, second = (planner.plan(observation, seed=5, steps=2, **options) for _ in range(2))
    assert first.tokens == second.tokens == want.tokens and torch.equal(second.actions, want.actions)
    assert second.passes < want.passes == max(map(len, want.tokens))


@pytest.mark.slow
def test_passes_that_guess_nothing_right_are_few(planner, observation, monkeypatch):
    """After some idle blocks most tokens are read alone."""
    longest = []
    monkeypatch.setattr(words, "guesses", lambda said, count, *rest: [1] * count)
    read = words.read_words
    monkeypatch.setattr(words, "read_words", lambda model, b, count, at: longest.append(count) or read(model, b, count, at))
    planner.plan(observation, seed=3)
    assert len(longest) > 8 and longest.count(1) > len(longest) / 2


def brute_force(state, block, drawn, forced, limit, whole):
    """One row, token by token: what `accept` promises."""
    length, cached, over, ended, ids = state
    ids = list(ids)
    if over:
        return length, cached + (1 if (ended or whole) and cached < length else 0), over, ended, ids, RULES.pad
    new, made = [], False
    for j, token in enumerate(drawn):
        token = forced[length + j] if forced[length + j] >= 0 else token
        new.append(token)
        match = j + 1 < len(drawn) and block[j + 1] == token
        ended = token == RULES.end
        over = ended or token == RULES.eos or length + len(new) >= limit
        made = (over if whole else ended) and match
        if over or not match:
            break
    ids[length : length + len(new)] = new
    return length + len(new), cached + len(new) + made, over, ended, ids, RULES.pad if over and (made or not (ended or whole)) else new[-1]


def cases(seed, rows=5, count=4, tokens=12):
    """Rows in all states, drafts that are often right."""
    rng = random.Random(seed)
    state = torch.zeros(rows, STATE + tokens, dtype=torch.long)
    block = torch.randint(0, 10, (rows, 16), generator=torch.Generator().manual_seed(seed))
    drawn = torch.tensor([[rng.randrange(10) for _ in range(count)] for _ in range(rows)])
    forced = torch.full((rows, tokens), -1)
    for r in range(rows):
        length = rng.randrange(0, 5)
        over = length > 0 and rng.random() < 0.3
        ended = over and rng.random() < 0.5
        state[r, :4] = torch.tensor([length, length - (not (ended and rng.random() < 0.5)), over, ended])
        for j in range(1, count):
            if rng.random() < 0.7:
                block[r, j] = drawn[r, j - 1]
        if rng.random() < 0.2:
            forced[r] = torch.tensor([rng.randrange(10) for _ in range(tokens)])
    return SimpleNamespace(state=state, block=block, forced=forced, limit=torch.tensor([rng.choice([5, 6, 12])])), drawn


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("whole", [False, True], ids=["ends", "every key"])
def test_accept_takes_what_was_drafted_rightly(seed, whole):
    buffers, drawn = cases(seed)
    before = [(int(s[0]), int(s[1]), bool(s[2]), bool(s[3]), s[4:].tolist()) for s in buffers.state]
    wanted = [
        brute_force(s, b.tolist(), d.tolist(), f.tolist(), int(buffers.limit), whole)
        for s, b, d, f in zip(before, buffers.block, drawn, buffers.forced, strict=True)
    ]
    accept(drawn, buffers, replace(RULES, whole=whole))
    for row, pending, want in zip(buffers.state, buffers.block[:, 0], wanted, strict=True):
        got = (int(row[0]), int(row[1]), bool(row[2]), bool(row[3]), row[4:].tolist(), int(pending))
        assert got == want


def test_a_table_guesses_what_it_has_heard(tmp_path):
    table = Table()
    for _ in range(3):
        table.learn([1, 2, 3, 7])
    table.learn([1, 2, 4, 7])
    assert guesses([], 9, table, [0.1] * 20, stop=[7]) == [1, 2, 3, 7]
    assert guesses([1, 2], 9, table, [0.9] * 20, stop=[7]) == [4, 7], "drawn by the row's own number"
    assert guesses([5], 9, Table(), [0.5] * 20) == []
    assert guesses([1, 2], 9, table, [0.1] * 20, last=[1, 2, 8, 8], stop=[7]) == [8, 8], "last step's words come first"
    assert guesses([1, 2], 9, table, [0.1] * 3) == [3], "no further than there are numbers"
    table.save(tmp_path / "drafts.json")
    again = Table.load(tmp_path / "drafts.json")
    assert len(again) == len(table) and guesses([1], 9, again, [0.1] * 20, stop=[7]) == [2, 3, 7]
    (tmp_path / "other.json").write_text('{"drafts": 2}')
    with pytest.raises(ValueError, match="no table of drafts"):
        Table.load(tmp_path / "other.json")


def test_a_table_forgets_what_it_has_not_met_for_longest(monkeypatch):
    monkeypatch.setattr(drafts, "CONTEXTS", 50)
    table = Table()
    for i in range(100):
        table.learn([i, i + 1, i + 2])
    assert len(table) == 50 and table.guess([0, 1], 0.5) is None and table.guess([99, 100], 0.5) == 101


def test_only_what_was_sampled_is_learnt():
    config = testing.size_config("small")
    planner = Planner.of(testing.random_model(config, "cpu", torch.float32), testing.StandIn(config), fast=True)
    planner.plan(testing.random_observation(0, 64, 96), seed=0, reasoning=testing.words(4), steps=1)
    assert len(planner.engine.speaker.table) == 0
