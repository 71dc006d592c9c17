"""What each precision of the 10B costs and brings on this card: time, memory, distance from fp32, and its kernels' speed.

    python bench/precision.py [--parts tune,within,check,truth,modes,stream,caps] [--modes bf16,fp8,w8,w4,tight] [--samples 1,6,16]
                              [--minutes 6]

Random weights, 16 words, drafts off. tune: the kernels' cuts, measured alone over weights that no cache holds; later parts use them, and
the table to keep is printed. within: the same within passes of words and flows, beginning with the cuts in use. check: kernels against
their twins. truth: what the specification says in fp32 (66 GB), which modes are then compared with, on the same weights, words and noise.
modes: stages for these numbers of samples. stream: steps of these modes' streams too. caps: small cards, emulated from the first byte. A
part that fails says so and the rest goes on; what would begin after so many minutes is skipped. The last line is JSON. The small size, and
no times, on the CPU.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import gc
import json
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from statistics import median
from typing import Any

import torch

from alpamayo_r1 import testing
from alpamayo_r1.bench.stream import Drive, one_run, passes_table
from alpamayo_r1.core.card import limit
from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.prompt import build_prompt
from alpamayo_r1.core.quantised import Kind, Quantised, Scheme, quantise, quantised_by_rows
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine import forward
from alpamayo_r1.engine.ops import eight, quantised
from alpamayo_r1.engine.ops.quantised import Cut
from alpamayo_r1.planner import Planner
from bench.sweep import replay_us
from checks import kernels
from checks.fidelity import deviation, widen
from checks.kernels import error

SIZE, DTYPE, PICTURE = ("10b", torch.bfloat16, (1080, 1920)) if CUDA else ("small", torch.float32, (96, 160))
KINDS: tuple[Kind, ...] = ("e4m3", "int8", "int4")
WORKERS, STEPS = 20, (1, 10)
CAPS = (("w8", 16, 16), ("w4", 12, 6), ("tight", 8, 1))
"""Precision, GiB of the card, samples."""

SHAPES: tuple[tuple[str, bool, int, int, int], ...] = (
    ("text qkv", False, 1, 6144, 4096),
    ("text out", False, 1, 4096, 4096),
    ("text gate_up", True, 1, 24576, 4096),
    ("text down", False, 1, 4096, 12288),
    ("head", False, 1, 155_697, 4096),
    ("expert qkv", False, 64, 4096, 2048),
    ("expert out", False, 64, 2048, 2048),
    ("expert gate_up", True, 64, 16512, 2048),
    ("expert down", False, 64, 2048, 8256),
)
"""Name, SwiGLU, rows, N, K of the 10B's products."""

How = tuple[int, int, int, bool]
"""Columns, warps, stages, and whether the weight is the matrix unit's first operand."""

CANDIDATES: dict[int, tuple[How, ...]] = {
    8: ((16, 1, 6, True), (32, 1, 8, True), (32, 1, 5, True), (32, 2, 6, True), (64, 2, 4, True), (64, 2, 6, True)),
    16: ((32, 4, 4, False), (32, 4, 6, False), (64, 8, 4, False), (128, 4, 4, False)),
    64: ((32, 4, 4, False), (64, 4, 3, False), (64, 4, 3, True), (64, 4, 4, True), (64, 4, 5, True), (128, 8, 3, True)),
}
"""By rows of a tile. Those of 8 and 16 are multiplied by `mma.sync`."""

SPLITS = {8: (1, 2, 4, 8), 16: (1, 2, 3, 4, 6, 8), 64: (1, 2, 4, 8)}

BEGAN = time.perf_counter()
RESULT: dict[str, Any] = {}


def say(line: str) -> None:
    """Prints a line with the seconds so far."""
    print(f"[{time.perf_counter() - BEGAN:6.1f}] {line}", flush=True)


def scheme_of(kind: Kind, k: int) -> Scheme:
    """The scheme of a kind as the precisions have it."""
    found = Scheme.fitting(kind, k, 64 if kind == "int4" else 128)
    assert found is not None
    return found


def product(x: torch.Tensor, weight: Quantised, swiglu: bool, cut: Cut, final: bool = False) -> torch.Tensor:
    """A product by one cut; final: in one part."""
    n, k = weight.shape
    quantised.CUTS.clear()
    quantised.CUTS[weight.scheme.kind, swiglu, cut.rows, n, k] = cut
    words = cut.rows < 64
    return quantised.swiglu_linear(x, weight, words) if swiglu else quantised.linear(x, weight, words=words, final=final)


@dataclass(frozen=True)
class Job:
    """A kernel to compile: final in one part, of a weight [n, k]."""

    kind: Kind
    rows: int
    how: How
    swiglu: bool
    final: bool
    n: int
    k: int

    def far(self) -> float | str:
        """The kernel's relative error on random numbers, or what happened."""
        columns, warps, stages, swap = self.how
        cut = Cut(self.rows, columns, 2, warps, stages, 4 if self.rows < 64 else 2, swap)
        generator = torch.Generator("cuda").manual_seed(0)
        x, w = (torch.randn(a, self.k, device="cuda", generator=generator).bfloat16() for a in (max(1, self.rows - 3), self.n))
        weight = quantise(w * self.k**-0.5, scheme_of(self.kind, self.k))
        try:
            dense = x.float() @ weight.dequantised(torch.float32).T
            if not self.swiglu:
                return error(product(x, weight, False, cut, self.final).sum(0), dense)
            gate, up = dense.chunk(2, 1)
            return error(product(x, weight, True, cut), torch.nn.functional.silu(gate) * up)
        except Exception as problem:
            return f"{type(problem).__name__}: {str(problem)[:200]}"


def jobs() -> Iterator[Job]:
    """All kernels that are timed, of small weights; the head's number of rows is odd, and so are its kernels."""
    for kind in KINDS:
        for rows, hows in CANDIDATES.items():
            for how in hows:
                k = 4096 if rows < 64 else 2048
                yield Job(kind, rows, how, True, True, 512, k)
                for final, deep in ((False, k), (True, k), *(((False, 8256), (True, 8256)) if rows == 64 else ())):
                    yield Job(kind, rows, how, False, final, 512, deep)
                if rows < 64:
                    yield Job(kind, rows, how, False, True, 513, k)


def compile_share(index: int) -> None:
    """This worker's share of the kernels, checked on small weights; prints one JSON list of (label, error)."""
    print(json.dumps([(str(job), job.far()) for job in list(jobs())[index::WORKERS]]))


def compile_all() -> None:
    """Compiles all candidates in processes side by side; a line for each that is wrong."""
    jobs = [subprocess.Popen([sys.executable, __file__, "--worker", str(i)], stdout=subprocess.PIPE, text=True) for i in range(WORKERS)]
    for i, job in enumerate(jobs):
        out = job.communicate()[0]
        if job.returncode:
            say(f"FAILED worker {i}: {out[-600:]}")
            continue
        for label, far in json.loads(out.splitlines()[-1]):
            if isinstance(far, str) or not far <= 1e-2:
                say(f"  WRONG {label}: {far}")


def graph_us(function: Callable[[], object], repeats: int = 5) -> float:
    """Microseconds of a function from replays of its graph."""
    function()
    return replay_us(function, repeats)


def copy_speed() -> float:
    """Bytes per second of a large copy, read and written."""
    source = torch.empty(2**29, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / graph_us(lambda: target.copy_(source)) * 1e6


def tune() -> dict[str, Any]:
    """The fastest cut of every kind and shape, alone, the first operand's the other way round beside it; then many rows."""
    compile_all()
    before, copy = dict(quantised.CUTS), copy_speed()
    say(f"copy {copy / 1e12:.2f} TB/s; microseconds, and the share of it that each kernel reads codes and scales with")
    kept: dict[tuple[str, bool, int, int, int], Cut] = {}
    for name, swiglu, m, n, k in SHAPES:
        x, dense = torch.randn(m, k, device="cuda").bfloat16(), torch.randn(n, k, device="cuda").bfloat16() * k**-0.5
        for kind in KINDS:
            copies = several(quantised_by_rows(dense, scheme_of(kind, k)))
            times = times_of(x, copies, swiglu, whole=name == "head")
            first = {swap: min((cut for cut in times if cut.swap is swap), key=lambda cut: times[cut]) for swap in (False, True)}
            best = min(first.values(), key=lambda cut: times[cut])
            kept[kind, swiglu, best.rows, n, k] = best
            line = [f"{shown(cut)} {times[cut]:.1f} us ({copies[0].nbytes / times[cut] / copy * 1e8:.0f} %)" for cut in first.values()]
            if m == 1:
                many = torch.randn(16, k, device="cuda").bfloat16()
                line += [f"16 rows {time_of(many, copies, swiglu, cut):.1f}" for cut in first.values()]
            was = before.get((kind, swiglu, 16 if m == 1 else 64, n, k))
            line.append(f"until now {time_of(x, copies, swiglu, was):.1f}" if was else "")
            say(f"{name} M={m} {n} x {k} {kind}: {'; '.join(line)}")
    quantised.CUTS.clear()
    quantised.CUTS.update(kept)
    print("CUTS = {")
    for key, cut in kept.items():
        print(f"    {key}: Cut({cut.rows}, {cut.columns}, {cut.splits}, {cut.warps}, {cut.stages}, {cut.ahead}, {cut.swap}),")
    print("}")
    RESULT["cuts"] = [[*key, *astuple(cut)] for key, cut in kept.items()]
    return many_rows()


def shown(cut: Cut) -> str:
    """A cut in few letters."""
    return f"{'first' if cut.swap else 'second'} {cut.columns} x{cut.splits} w{cut.warps} s{cut.stages}"


def times_of(x: torch.Tensor, copies: list[Quantised], swiglu: bool, whole: bool) -> dict[Cut, float]:
    """Microseconds of a product by every cut that runs. whole: K in one part."""
    times: dict[Cut, float] = {}
    for rows in (8, 16) if len(x) <= 8 else (64,):
        for columns, warps, stages, swap in CANDIDATES[rows]:
            for splits in (1,) if swiglu or whole else SPLITS[rows]:
                cut = Cut(rows, columns, splits, warps, stages, 4 if rows < 64 else 2, swap)
                try:
                    times[cut] = time_of(x, copies, swiglu, cut)
                except Exception as problem:
                    say(f"  {copies[0].scheme} {cut}: {type(problem).__name__} {str(problem)[:80]}")
    return times


def several(weight: Quantised) -> list[Quantised]:
    """Copies of a weight that no cache holds together."""
    count = max(1, min(12, int(4e8 / weight.nbytes)))
    return [weight] + [replace(weight, codes=weight.codes.clone(), scale=weight.scale.clone()) for _ in range(count - 1)]


def time_of(x: torch.Tensor, copies: list[Quantised], swiglu: bool, cut: Cut) -> float:
    """Microseconds of a product by one cut."""
    return graph_us(lambda: [product(x, one, swiglu, cut) for one in copies]) / len(copies)


def within() -> dict[str, Any]:
    """Cuts within a pass of words and within a flow, each changed alone and kept where the whole is faster; these are printed."""
    found: dict[str, Any] = {}
    for name, what in (("w8", "words"), ("fp8", "flow")):
        release()
        planner = Planner.of(model := build(name), testing.StandIn(model.config), fast=True)
        planner.plan(testing.random_observation(0, *PICTURE), samples=1, seed=0, reasoning=testing.words(16), max_tokens=64)
        engine = planner.engine
        assert engine is not None and engine.arena is not None
        buffers, positions = engine.arena.view(1, 1), engine._positions
        runs = {
            "words": lambda engine=engine, buffers=buffers, n=positions: forward.read_words(engine.model, buffers, 1, n),
            "flow": lambda engine=engine, buffers=buffers, n=positions: forward.flow(engine.model, buffers, 10, n),
        }
        with torch.inference_mode(), engine.lane.turn():
            found[f"{name} {what}"] = changed_within(runs[what], KIND_OF[name], what == "flow")
    return found


KIND_OF: dict[str, Kind] = {"fp8": "e4m3", "w8": "int8"}
"""What the language model is in."""


def changed_within(run: Callable[[], None], kind: Kind, flow: bool) -> dict[str, Any]:
    """Microseconds of a run before and after, and the cuts that changed."""
    run()
    before = best = replay_us(run, 8)
    changed: dict[str, Any] = {}
    for key in [key for key in quantised.CUTS if key[0] == kind and (key[2] == 64) == flow and key[3] != 155_697]:
        for cut in neighbours(quantised.CUTS[key]):
            was, quantised.CUTS[key] = quantised.CUTS[key], cut
            try:
                run()
                us = replay_us(run, 8)
            except Exception as problem:
                say(f"  {key} {cut}: {type(problem).__name__}")
                us = float("inf")
            if us < 0.998 * best:
                best, changed[str(key)] = us, astuple(cut)
                say(f"  {key} {cut}: {us:.0f} us")
            else:
                quantised.CUTS[key] = was
    say(f"{kind} {'flow' if flow else 'words'}: {before:.0f} -> {best:.0f} us")
    return {"before_us": before, "after_us": best, "changed": changed}


def neighbours(cut: Cut) -> list[Cut]:
    """Cuts that differ in one thing."""
    ahead = [replace(cut, ahead=lines) for lines in ((0, 4, 8) if cut.rows == 64 else (0, 8, 16, 32))]
    splits = [replace(cut, splits=parts) for parts in (cut.splits // 2, 2 * cut.splits) if cut.splits > 1 and parts]
    stages = [replace(cut, stages=cut.stages + more) for more in (-1, 1)]
    return ahead + splits + stages + [replace(cut, unroll=2, stages=n) for n in (3, 4) if cut.unroll == 1 and cut.rows < 64]


def many_rows() -> dict[str, Any]:
    """Microseconds of products of many rows: by the kernels that read codes, with the weight made anew or in 8 bits, and in bf16."""
    found: dict[str, Any] = {}
    for n, k, counts in (
        (24576, 4096, (512, 1536)),
        (4096, 12288, (512, 2494)),
        (16512, 2048, (64, 128, 384, 1024)),
        (2048, 8256, (64, 384)),
        (2048, 2048, (64, 384, 1024)),
    ):
        dense = torch.randn(n, k, device="cuda").bfloat16()
        weights = {kind: quantised_by_rows(dense, scheme_of(kind, k)) for kind in KINDS}
        for m in counts:
            x = torch.randn(m, k, device="cuda").bfloat16()
            row = {"bf16": graph_us(lambda x=x, w=dense: torch.mm(x, w.T))}
            for kind, weight in weights.items():
                row[f"{kind} made"] = graph_us(lambda x=x, w=weight: quantised.many(x, w))
                if m <= 1024:
                    before, eight.FEW = eight.FEW, 1024
                    row[f"{kind} codes"] = graph_us(lambda x=x, w=weight: quantised.linear(x, w, final=True))
                    eight.FEW = before
            found[f"{m} x {n} x {k}"] = row
            say(f"{m} x {n} x {k}: " + ", ".join(f"{name} {us:.0f}" for name, us in row.items()) + " us")
    return found


def check() -> dict[str, Any]:
    """Kernels of weights of few bits against their twins, and rows read together against each alone."""
    cases = [case for case in (kernels.BIG if CUDA else kernels.LITTLE) if case[0].startswith(KINDS)]
    found = dict(kernels.check(cases, DEVICE, DTYPE))
    bad = {name: far for name, far in found.items() if isinstance(far, str) or not far <= 1e-2 or ("own bits" in name and far)}
    say(f"{len(found)} checks of kernels: {len(found) - len(bad)} well" + "".join(f"\n    BAD {name}: {far}" for name, far in bad.items()))
    return {name: str(far) for name, far in bad.items()}


def build(mode: str) -> VLA:
    """The random model in a precision: the same numbers before they are made few bits."""
    return testing.random_model(testing.size_config(SIZE), DEVICE, DTYPE, precision=mode, words_on_host=CUDA and mode != "bf16")


def facts(planner: Planner) -> dict[str, torch.Tensor]:
    """Keys of some layers, the prompt's logits, and actions after some steps, of one scene."""
    observation, model = testing.random_observation(0, *PICTURE), planner.model
    noise = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))
    how = PlanOptions(reasoning=testing.words(16), max_tokens=64, seed=0)
    found = {f"actions {n}": planner.plan(observation, how, samples=2, noise=noise, steps=n).actions.cpu() for n in STEPS}
    prompt = build_prompt(observation, planner.vocabulary, model.config)
    layers = (0, model.config.text.layers // 2, model.config.text.layers - 1)
    if planner.engine is None:
        logits, kv = model.prefill(prompt)
        return found | {"logits": logits.float().cpu()} | {f"keys {i}": kv[i][0].float().cpu() for i in layers}
    planner.plan(observation, how, samples=1)
    arena = planner.engine.arena
    assert arena is not None
    buffers = arena.view(1, 1)
    found |= {f"keys {i}": buffers.prefix[i][0][:, :, : len(prompt)].float().cpu() for i in layers}
    with torch.inference_mode():
        made = planner.engine.prompt(observation)
        reading = planner.engine.reader.read(made, Stopwatch(model.device))
        logits = reading.logits(planner.engine.model, buffers, 0)
    return found | {"logits": logits.float().cpu()}


@torch.inference_mode()
def truth() -> dict[str, torch.Tensor]:
    """What the specification says in fp32."""
    model = build("bf16")
    wide = widen(model)
    del model
    release()
    return facts(Planner(wide, testing.StandIn(wide.config)))


def far_from(exact: dict[str, torch.Tensor], got: dict[str, torch.Tensor], model: VLA) -> dict[str, float]:
    """Relative errors, and of actions the mean distance in the flow's units."""
    return {
        name: float(deviation(got[name][None], want[None], model)["both"]) if name.startswith("actions") else error(got[name], want)  # pyright: ignore[reportArgumentType]
        for name, want in exact.items()
    }


def release() -> None:
    """Gives memory back that nothing holds."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def stages(planner: Planner, samples: int, repeats: int) -> dict[str, float]:
    """Medians of a plan's stages in milliseconds, and peak memory in GB."""
    observation = testing.random_observation(0, *PICTURE)
    plans, walls = [], []
    for i in range(repeats + 2):
        if CUDA and i == 0:
            torch.cuda.reset_peak_memory_stats()  # the first plan uses most: those from graphs have memory of their own
        started = time.perf_counter()
        plans.append(planner.plan(observation, samples=samples, seed=i, reasoning=testing.words(16), max_tokens=64, drafts=False))
        walls.append(1e3 * (time.perf_counter() - started))
    found = {stage: median(plan.timing[stage] for plan in plans[2:]) for stage in plans[0].timing}
    peak = torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0
    return found | {"wall": median(walls[2:]), "token": found["reasoning"] / 16, "peak_gb": peak}


def show(label: str, t: dict[str, float]) -> None:
    """One line of stages."""
    parts = ", ".join(f"{name} {t[name]:.2f}" for name in ("vision", "prefill", "token", "flow", "peak_gb"))
    say(f"{label}: wall {t['wall']:.1f} ms, {parts}")


def modes(names: list[str], counts: list[int], exact: dict[str, torch.Tensor] | None, streams: bool) -> dict[str, Any]:
    """Each precision's stages and distance from fp32."""
    found: dict[str, Any] = {}
    for name in names:
        release()
        started = time.perf_counter()
        model = build(name)
        planner = Planner.of(model, testing.StandIn(model.config), fast=True)
        peak = torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0
        say(f"{name}: built in {time.perf_counter() - started:.1f} s, peak so far {peak:.2f} GB")
        found[name] = {"stages": {}}
        for samples in counts:
            found[name]["stages"][samples] = stages(planner, samples, (9 if samples == 1 else 5) if CUDA else 1)
            show(f"{name} S={samples}", found[name]["stages"][samples])
        if exact is not None:
            found[name]["far"] = far_from(exact, facts(planner), model)
            say(f"{name} from fp32: " + ", ".join(f"{what} {far:.5f}" for what, far in found[name]["far"].items()))
        if streams:
            found[name]["stream"] = streamed(planner)
        again = [planner.plan(testing.random_observation(1, *PICTURE), samples=2, seed=0).actions for _ in range(2)]
        found[name]["same"] = bool(torch.equal(*again))
        say(f"{name}: two runs equal to the bit: {found[name]['same']}")
        del planner, model
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
    return found


def streamed(planner: Planner) -> list[dict[str, Any]]:
    """Latency of a stream's steps by the passes that their words took, most of which were drafted."""
    drive, steps = Drive(*PICTURE), []
    for share in (0.8, 0.9):
        steps += one_run(planner, drive, planner.model.config, testing.words(16), 16, 1, share, 10 if CUDA else 2, say)["steps"]
    return passes_table([(1, step) for step in steps], say)


def small_card(mode: str, card: int, samples: int) -> None:
    """One plan in this process as on a card of so many GiB; prints one line."""
    limit(torch.device("cuda", 0), card)
    model = build(mode)
    found = stages(Planner.of(model, testing.StandIn(model.config), fast=True), samples, 2)
    peak = torch.cuda.max_memory_reserved() / 1e9
    print(f"{mode} on {card} GiB, S={samples}: {found['wall']:.1f} ms, peak {found['peak_gb']:.2f} GB, reserved {peak:.2f} GB")


def caps() -> dict[str, Any]:
    """What runs on small cards, each in a process of its own."""
    found = {}
    for mode, card, samples in CAPS:
        command = [sys.executable, __file__, "--card", f"{mode},{card},{samples}", *(["--cuts", json.dumps(plain_cuts())])]
        done = subprocess.run(command, capture_output=True, text=True)
        found[f"{mode} {card}"] = line = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()[-1]
        say(line)
    return found


def plain_cuts() -> list[Any]:
    """The cuts in use, for another process."""
    return [[*key, *astuple(cut)] for key, cut in quantised.CUTS.items()]


def parts(how: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The parts that were asked for, by name."""
    wanted, exact = how.parts.split(","), None
    if "tune" in wanted and CUDA:
        yield "tune", tune
    if "within" in wanted and CUDA:
        yield "within", within
    if "check" in wanted:
        yield "check", check
    if "modes" in wanted:
        if "truth" in wanted:
            exact = truth()
            say("truth: done")
        yield "modes", lambda: modes(how.modes.split(","), [int(count) for count in how.samples.split(",")], exact, "stream" in wanted)
    if "caps" in wanted and CUDA:
        release()
        yield "caps", caps


def main() -> None:
    """All parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="tune,check,truth,modes,caps")
    parser.add_argument("--modes", default=",".join(PRECISIONS))
    parser.add_argument("--samples", default="1,6,16" if CUDA else "1")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--card", help=argparse.SUPPRESS)
    parser.add_argument("--cuts", help=argparse.SUPPRESS)
    how = parser.parse_args()
    warnings.simplefilter("ignore")
    for kind, swiglu, rows, n, k, *cut in json.loads(how.cuts or "[]"):
        quantised.CUTS[kind, swiglu, rows, n, k] = Cut(*cut)
    if how.worker is not None:
        return compile_share(how.worker)
    if how.card:
        mode, card, samples = how.card.split(",")
        return small_card(mode, int(card), int(samples))
    for name, part in parts(how):
        if time.perf_counter() - BEGAN > 60 * how.minutes:
            say(f"skipped {name}")
            continue
        try:
            RESULT[name] = part()
        except Exception as problem:
            say(f"FAILED {name}: {type(problem).__name__}: {str(problem)[:300]}")
            traceback.print_exc()
    print(json.dumps(RESULT, default=str))


if __name__ == "__main__":
    main()
