"""Drawing tokens as `alpamayo_r1.core.sampling` does, without sorting the vocabulary.

A key is an integer that orders as the logits do. The edge is the key of the least likely token that top-p keeps: a pass finds four bits
of it, from the masses of sixteen ranges of keys, in f64 and in blocks side by side. Of several tokens at the edge the first ones are kept.

    peaks -> weigh -> narrow (BITS / 4 times) -> tally -> choose
"""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend

RANGES = tl.constexpr(16)
"""Ranges of keys that a pass tells apart: four bits."""


@triton.jit
def _values(logits, blocked, row, ids, vocab):
    """Logits of a row as fp32, one zero only; -inf where they are blocked or beyond the vocabulary."""
    inside = ids < vocab
    value = tl.load(logits + row.to(tl.int64) * vocab + ids, mask=inside, other=float("-inf")).to(tl.float32)
    allowed = tl.load(blocked + ids, mask=inside, other=1) == 0
    value = tl.where(value == 0, 0.0, value)
    return tl.where(allowed, value, float("-inf"))


@triton.jit
def _key(value, BITS: tl.constexpr):
    """The first BITS bits of an fp32 value as an integer that orders as the values do, NaN above all."""
    bits = value.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(value != value, 0x7FFFFFFF, ordered) >> (32 - BITS)


@triton.jit
def _value(key, BITS: tl.constexpr):
    """The value of a key whose other bits were zero."""
    rest = 32 - BITS
    ordered = (key << rest) | ((key >> 31) & ((1 << rest) - 1))
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _weight(value, top, temperature):
    """exp((value - top) / temperature) in f64."""
    return tl.exp((value.to(tl.float64) - top.to(tl.float64)) / temperature)


@triton.jit
def _most(peaks, row, blocks, BITS: tl.constexpr, MANY: tl.constexpr):
    """The largest logit of a row and the first id that has it."""
    b = tl.arange(0, MANY)
    best = tl.max(tl.load(peaks + row * blocks + b, mask=b < blocks, other=-(1 << 63)), 0)
    return _value((best >> 32).to(tl.int32), BITS), 0x7FFFFFFF - (best & 0xFFFFFFFF)


@triton.jit
def _edge(masses, row, blocks, top_p, passes, BITS: tl.constexpr, MANY: tl.constexpr):
    """The edge as far as so many passes have found it, its other bits lowest, and the mass that the kept tokens reach at least."""
    b = tl.arange(0, MANY)[:, None]
    j = tl.arange(0, RANGES)
    edge = tl.full((), -(1 << (BITS - 1)), tl.int64)
    goal = tl.full((), 0.0, tl.float64)
    for p in range(0, passes):
        at = ((p * tl.num_programs(0) + row) * blocks + b) * RANGES + j[None, :]
        mass = tl.sum(tl.load(masses + at, mask=b < blocks, other=0.0), 0)
        goal = tl.where(p == 0, top_p * tl.max(mass, 0), goal)
        beyond = tl.sum(((j > 0) & (mass >= goal)).to(tl.int64), 0)
        edge += beyond << (BITS - 4 - 4 * p)
    return edge, goal


@triton.jit(do_not_specialize=["blocks"])
def peaks_kernel(logits, blocked, peaks, vocab, blocks, BITS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """Of one block of one row: the largest key and the first id that has it, as one number."""
    row = tl.program_id(0)
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _depend(PDL)
    key = _key(_values(logits, blocked, row, ids, vocab), BITS).to(tl.int64)
    tl.store(peaks + row * blocks + tl.program_id(1), tl.max((key << 32) + (0x7FFFFFFF - ids), 0))


@triton.jit(do_not_specialize=["blocks"])
def weigh_kernel(
    logits, blocked, peaks, weights, vocab, blocks, temperature: tl.float64,
    BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of one block of one row: the weights."""
    row = tl.program_id(0)
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _depend(PDL)
    top, _ = _most(peaks, row, blocks, BITS, MANY)
    weight = _weight(_values(logits, blocked, row, ids, vocab), top, temperature)
    tl.store(weights + row.to(tl.int64) * vocab + ids, weight, mask=ids < vocab)


@triton.jit
def _keys_and_weights(logits, blocked, weights, row, ids, vocab, BITS: tl.constexpr):
    """Keys i64 and weights f64 of a row's tokens; beyond the vocabulary no weight."""
    weight = tl.load(weights + row.to(tl.int64) * vocab + ids, mask=ids < vocab, other=0.0)
    return _key(_values(logits, blocked, row, ids, vocab), BITS).to(tl.int64), weight


@triton.jit(do_not_specialize=["blocks", "passed"])
def narrow_kernel(
    logits, blocked, weights, masses, vocab, blocks, top_p: tl.float64, passed,
    BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of one block of one row, for each of sixteen ranges that split what earlier passes left: its mass and that of all above."""
    row = tl.program_id(0)
    block = tl.program_id(1)
    _depend(PDL)
    key, weight = _keys_and_weights(logits, blocked, weights, row, block * BLOCK + tl.arange(0, BLOCK), vocab, BITS)
    edge, _ = _edge(masses, row, blocks, top_p, passed, BITS, MANY)
    lies = tl.minimum(tl.maximum((key - edge) >> (BITS - 4 - 4 * passed), -1), RANGES).to(tl.int32)
    into = masses + ((passed * tl.num_programs(0) + row) * blocks + block) * RANGES
    for i in tl.static_range(0, RANGES, 4):
        even = tl.join(tl.where(lies >= i, weight, 0.0), tl.where(lies >= i + 2, weight, 0.0))
        odd = tl.join(tl.where(lies >= i + 1, weight, 0.0), tl.where(lies >= i + 3, weight, 0.0))
        four = tl.reshape(tl.sum(tl.join(even, odd), 0), (4,))  # side by side, so that their steps overlap
        tl.store(into + i + tl.arange(0, 4), four)


@triton.jit(do_not_specialize=["blocks"])
def tally_kernel(
    logits, blocked, weights, masses, above, ties, vocab, blocks, top_p: tl.float64,
    BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of one block of one row: the mass above the edge, and how many tokens stand at it."""
    row = tl.program_id(0)
    block = tl.program_id(1)
    _depend(PDL)
    key, weight = _keys_and_weights(logits, blocked, weights, row, block * BLOCK + tl.arange(0, BLOCK), vocab, BITS)
    edge, _ = _edge(masses, row, blocks, top_p, BITS // 4, BITS, MANY)
    tl.store(above + row * blocks + block, tl.sum(tl.where(key > edge, weight, 0.0), 0))
    tl.store(ties + row * blocks + block, tl.sum((key == edge).to(tl.int32), 0))


@triton.jit(do_not_specialize=["blocks"])
def choose_kernel(
    logits, blocked, weights, masses, above, ties, peaks, uniform, out, vocab, blocks, top_p: tl.float64, temperature: tl.float64,
    BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One row: the block, and within it the token, in whose share of the kept mass the uniform number lies, in the order of ids."""
    row = tl.program_id(0)
    b = tl.arange(0, MANY)
    _depend(PDL)
    top, most = _most(peaks, row, blocks, BITS, MANY)
    edge, goal = _edge(masses, row, blocks, top_p, BITS // 4, BITS, MANY)
    high = tl.load(above + row * blocks + b, mask=b < blocks, other=0.0)
    tied = tl.load(ties + row * blocks + b, mask=b < blocks, other=0)
    each = _weight(_value(edge.to(tl.int32), BITS), top, temperature)
    room = tl.where(each > 0, tl.ceil((goal - tl.sum(high, 0)) / each), float("inf"))
    room = tl.minimum(tl.maximum(room, 0.0), tl.sum(tied, 0).to(tl.float64)).to(tl.int32)
    kept = tl.minimum(tl.maximum(room - (tl.cumsum(tied, 0) - tied), 0), tied)
    mass = high + kept.to(tl.float64) * each
    ends = tl.cumsum(mass, 0)
    aim = tl.load(uniform + row).to(tl.float64) * tl.max(ends, 0)
    block = tl.minimum(tl.sum((ends <= aim).to(tl.int32), 0), blocks - 1)
    earlier = b < block
    room -= tl.sum(tl.where(earlier, tied, 0), 0)
    aim -= tl.sum(tl.where(earlier, mass, 0.0), 0)

    ids = block * BLOCK + tl.arange(0, BLOCK)
    key, weight = _keys_and_weights(logits, blocked, weights, row, ids, vocab, BITS)
    tie = (key == edge).to(tl.int32)
    drawn = ((key > edge) | ((tie > 0) & (tl.cumsum(tie, 0) <= room))) & (weight > 0)
    reached = drawn & (tl.cumsum(tl.where(drawn, weight, 0.0), 0) > aim)
    first = tl.min(tl.where(reached, ids, vocab), 0)
    token = tl.where(first < vocab, first, tl.max(tl.where(drawn, ids, 0), 0))
    finite = (top - top) == 0
    tl.store(out + row, tl.where(finite, token.to(tl.int64), most))


# Most distributions are peaked: few tokens weigh enough to be kept at all. Then two passes over the vocabulary are enough:
#
#     peaks -> sift (each block's mass, and its tokens that may be kept) -> pick (one program per row: the edge, and the token)


@triton.jit(do_not_specialize=["blocks"])
def sift_kernel(
    logits, blocked, peaks, masses, counts, found, values, vocab, blocks, temperature: tl.float64, window: tl.float64,
    BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, CAP: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Of one block of one row: its mass, and the tokens within `window` of the largest logit, in the order of ids.

    counts[row, block] says how many there are, of which the first CAP are stored in found (ids) and values (logits) [row, block, CAP].
    """
    row = tl.program_id(0)
    block = tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    _depend(PDL)
    top, _ = _most(peaks, row, blocks, BITS, MANY)
    value = _values(logits, blocked, row, ids, vocab)
    at = row * blocks + block
    tl.store(masses + at, tl.sum(_weight(value, top, temperature), 0))
    able = value.to(tl.float64) >= top.to(tl.float64) - window
    place = tl.cumsum(able.to(tl.int32), 0) - 1
    tl.store(counts + at, tl.sum(able.to(tl.int32), 0))
    into = at.to(tl.int64) * CAP + place
    fits = able & (place < CAP)
    tl.store(found + into, ids, mask=fits)
    tl.store(values + into, value, mask=fits)


@triton.jit
def _gather(
    found, values, id_row, value_row, at, counts, ends, n, b, STEP: tl.constexpr, CAP: tl.constexpr
):  # fmt: skip
    """Puts a row's n candidates side by side: block by block from found and values into id_row and value_row."""
    for first in range(0, n, STEP):
        j = first + tl.arange(0, STEP)
        home = tl.sum((ends[None, :] <= j[:, None]).to(tl.int32), 1)
        start = tl.sum(tl.where(b[None, :] == home[:, None], (ends - counts)[None, :], 0), 1)
        slot = (at + home).to(tl.int64) * CAP + j - start
        tl.store(id_row + j, tl.load(found + slot, mask=j < n, other=0), mask=j < n)
        tl.store(value_row + j, tl.load(values + slot, mask=j < n, other=0.0), mask=j < n)


@triton.jit
def _keep(value_row, weight_row, n, goal, top, temperature, STEP: tl.constexpr, FEW: tl.constexpr):
    """Weights of the n candidates, zero where the mass of the likelier ones (equal ones: of smaller id) reaches the goal; their sum."""
    kept = tl.full((), 0.0, tl.float64)
    for first in range(0, n, STEP):
        j = first + tl.arange(0, STEP)
        value = tl.load(value_row + j, mask=j < n, other=float("-inf"))
        above = tl.zeros((STEP,), tl.float64)
        for other in range(0, n, FEW):
            k = other + tl.arange(0, FEW)
            rival = tl.load(value_row + k, mask=k < n, other=float("-inf"))
            weight = tl.where(k < n, _weight(rival, top, temperature), 0.0)
            ahead = (rival[None, :] > value[:, None]) | ((rival[None, :] == value[:, None]) & (k[None, :] < j[:, None]))
            above += tl.sum(tl.where(ahead, weight[None, :], 0.0), 1)
        weight = tl.where((j < n) & (above < goal), _weight(value, top, temperature), 0.0)
        tl.store(weight_row + j, weight, mask=j < n)
        kept += tl.sum(weight, 0)
    return kept


@triton.jit
def _reach(id_row, weight_row, n, aim, vocab, STEP: tl.constexpr):
    """The first id at whose end the running sum of weights exceeds the aim; where none does, the last one that weighs."""
    token = vocab
    last = 0
    before = tl.full((), 0.0, tl.float64)
    for first in range(0, n, STEP):
        j = first + tl.arange(0, STEP)
        weight = tl.load(weight_row + j, mask=j < n, other=0.0)
        ids = tl.load(id_row + j, mask=j < n, other=0)
        reached = (weight > 0) & (before + tl.cumsum(weight, 0) > aim)
        token = tl.minimum(token, tl.min(tl.where(reached, ids, vocab), 0))
        last = tl.maximum(last, tl.max(tl.where(weight > 0, ids, 0), 0))
        before += tl.sum(weight, 0)
    return tl.where(token < vocab, token, last)


@triton.jit
def _mass_from(logits, blocked, row, key, vocab, blocks, top, temperature, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """Mass of all tokens of a row whose key is at least `key`, and how many have it exactly."""
    mass = tl.full((), 0.0, tl.float64)
    ties = tl.full((), 0, tl.int32)
    for block in range(0, blocks):
        value = _values(logits, blocked, row, block * BLOCK + tl.arange(0, BLOCK), vocab)
        own = _key(value, BITS).to(tl.int64)
        mass += tl.sum(tl.where(own >= key, _weight(value, top, temperature), 0.0), 0)
        ties += tl.sum((own == key).to(tl.int32), 0)
    return mass, ties


@triton.jit
def _pick_of_many(
    logits, blocked, row, vocab, blocks, goal, share, top, temperature, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The token of a row with more candidates than there is room for: the edge bit by bit, each by a pass over the vocabulary."""
    edge = tl.full((), -(1 << (BITS - 1)), tl.int64)
    for passed in range(0, BITS):
        trial = edge + (tl.full((), 1, tl.int64) << (BITS - 1 - passed))
        mass, _ = _mass_from(logits, blocked, row, trial, vocab, blocks, top, temperature, BITS, BLOCK)
        edge = tl.where(mass >= goal, trial, edge)
    reached, ties = _mass_from(logits, blocked, row, edge, vocab, blocks, top, temperature, BITS, BLOCK)
    each = _weight(_value(edge.to(tl.int32), BITS), top, temperature)
    high = reached - ties.to(tl.float64) * each
    room = tl.where(each > 0, tl.ceil((goal - high) / each), 0.0)
    room = tl.minimum(tl.maximum(room, 0.0), ties.to(tl.float64)).to(tl.int32)
    aim = share * (high + room.to(tl.float64) * each)
    token = vocab
    last = 0
    before = tl.full((), 0.0, tl.float64)
    for block in range(0, blocks):
        ids = block * BLOCK + tl.arange(0, BLOCK)
        value = _values(logits, blocked, row, ids, vocab)
        key = _key(value, BITS).to(tl.int64)
        tie = (key == edge).to(tl.int32)
        kept = (key > edge) | ((tie > 0) & (tl.cumsum(tie, 0) <= room))
        weight = tl.where(kept, _weight(value, top, temperature), 0.0)
        reached_here = (weight > 0) & (before + tl.cumsum(weight, 0) > aim)
        token = tl.minimum(token, tl.min(tl.where(reached_here, ids, vocab), 0))
        last = tl.maximum(last, tl.max(tl.where(weight > 0, ids, 0), 0))
        before += tl.sum(weight, 0)
        room -= tl.sum(tie, 0)
    return tl.where(token < vocab, token, last)


@triton.jit(do_not_specialize=["blocks"])
def pick_kernel(
    logits, blocked, peaks, masses, counts, found, values, ids, kept_values, weights, uniform, out, crowded, vocab, blocks,
    top_p: tl.float64, temperature: tl.float64, BITS: tl.constexpr, BLOCK: tl.constexpr, MANY: tl.constexpr, CAP: tl.constexpr,
    MOST: tl.constexpr, STEP: tl.constexpr, FEW: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One row: the token in whose share of the kept mass the uniform number lies, in the order of ids.

    ids, kept_values, weights [rows, MOST]: room for the row's candidates side by side. crowded[row] is set where that is too little.
    """
    row = tl.program_id(0)
    b = tl.arange(0, MANY)
    at = row * blocks
    _depend(PDL)
    top, most = _most(peaks, row, blocks, BITS, MANY)
    goal = top_p * tl.sum(tl.load(masses + at + b, mask=b < blocks, other=0.0), 0)
    count = tl.load(counts + at + b, mask=b < blocks, other=0)
    ends = tl.cumsum(count, 0)
    n = tl.sum(count, 0)
    share = tl.load(uniform + row).to(tl.float64)
    token = most.to(tl.int32)
    if (top - top) == 0:
        if (n <= MOST) & (tl.max(count, 0) <= CAP):
            mine = row.to(tl.int64) * MOST
            _gather(found, values, ids + mine, kept_values + mine, at, count, ends, n, b, STEP, CAP)
            tl.debug_barrier()
            kept = _keep(kept_values + mine, weights + mine, n, goal, top, temperature, STEP, FEW)
            tl.debug_barrier()
            token = _reach(ids + mine, weights + mine, n, share * kept, vocab, STEP)
        else:
            tl.store(crowded + row, 1)
            token = _pick_of_many(logits, blocked, row, vocab, blocks, goal, share, top, temperature, BITS, BLOCK)
    tl.store(out + row, token.to(tl.int64))


@triton.jit(do_not_specialize=["rows", "count"])
def accept_kernel(
    drawn, forced, block, limit, state, rows, count, forced_stride, state_stride, eos, end, pad,
    ROWS: tl.constexpr, LONGEST: tl.constexpr, EVERY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """All rows in one program: how many of a block's drafts were what was drawn, and where that leaves each row. See words.accept.

    state: a row's length, cached, over, ended, ids.
    """
    r = tl.arange(0, ROWS)
    inside = r < rows
    row = state + r * state_stride
    _depend(PDL)
    said = tl.load(row, mask=inside, other=0)
    keys = tl.load(row + 1, mask=inside, other=0)
    was_over = tl.load(row + 2, mask=inside, other=1) != 0
    was_ended = tl.load(row + 3, mask=inside, other=0) != 0
    most = tl.load(limit)
    owed = was_over & (was_ended | EVERY) & (keys < said)
    going = inside & (was_over == 0)
    new = tl.zeros((ROWS,), tl.int64)
    pending = tl.zeros((ROWS,), tl.int64) + pad
    now_over = tl.zeros((ROWS,), tl.int1)
    now_ended = tl.zeros((ROWS,), tl.int1)
    made = tl.zeros((ROWS,), tl.int1)
    for j in range(0, count):
        at = said + j
        given = tl.load(forced + r * forced_stride + at, mask=going, other=-1)
        token = tl.where(given >= 0, given, tl.load(drawn + r * count + j, mask=going, other=0))
        tl.store(row + 4 + at, token, mask=going)
        draft = tl.load(block + r * LONGEST + j + 1, mask=going & (j + 1 < count), other=-1)
        match = token == draft
        new += going.to(tl.int64)
        pending = tl.where(going, token, pending)
        finished = going & (token == end)
        stops = finished | (going & ((token == eos) | (at + 1 >= most)))
        now_ended = now_ended | finished
        made = made | ((stops if EVERY else finished) & match)
        now_over = now_over | stops
        going = going & match & (stops == 0)
    tl.store(row, said + new, mask=inside)
    tl.store(row + 1, keys + new + made.to(tl.int64) + owed.to(tl.int64), mask=inside)
    tl.store(row + 2, (was_over | now_over).to(tl.int64), mask=inside)
    tl.store(row + 3, (was_ended | now_ended).to(tl.int64), mask=inside)
    wanted = now_over if EVERY else now_ended
    quiet = was_over | (now_over & ((wanted == 0) | made))
    tl.store(block + r * LONGEST, tl.where(quiet, pad, pending), mask=inside)
