"""Strangers' input, seeded: mutated motions, pictures, configs, tokenizers, data sets, evaluations, lists and command lines.

    python checks/fuzz.py --cases 10000 --seed 1

Every case must work, be noted, or end in a typed error: a class of ours, ValueError / TypeError / KeyError raised by this package, or an
OSError that names its file. Counted as wrong, by kind: other errors (untyped), what should have been refused or noted and was not (silent),
over 20 s of CPU (slow), over 1 GB more memory (memory; where the system tells), anything written outside the case's folder (outside), and
any name looked up or address connected to (network). Exits with 1 if there are any. The kinds are in strangers.py.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tests")]

import alpamayo_r1  # noqa: E402
from checks.strangers import KINDS, Kind, prepare  # noqa: E402

HOME = str(Path(alpamayo_r1.__file__).parent)
SECONDS, BYTES = 20.0, 10**9
JUDGES = ("untyped", "silent", "slow", "memory", "outside", "network")


@dataclass(frozen=True)
class Wrong:
    """A case that failed: its kind and number, who judged so, and what was seen."""

    kind: str
    case: int
    judge: str
    what: str


def is_typed(error: BaseException) -> bool:
    """Whether an error is one of ours: its class, or where it was raised."""
    if type(error).__module__.startswith("alpamayo_r1"):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, ValueError | TypeError | KeyError) and raised.filename.startswith(HOME) and "raise" in (raised.line or "raise")


def memory(name: str) -> int:
    """VmRSS (now) or VmHWM (at most so far) of this process in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def forget_peak() -> None:
    """Sets VmHWM to VmRSS."""
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuses every look-up and connection, and lists them."""
    tried: list[str] = []

    def refuse(*given: Any, **more: Any) -> NoReturn:
        tried.append(str(given or more)[:100])
        raise OSError(101, "no network in this check", "network")

    with patch("socket.socket.connect", refuse), patch("socket.getaddrinfo", refuse):
        assert socket.getaddrinfo is refuse
        yield tried


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, every other entry with None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def judged(kind: Kind, case: int, seed: int, watch: Path) -> Iterator[tuple[str, str]]:
    """Runs one case; judge and what was seen, for everything that is wrong with it."""
    (watch / "beside").mkdir()
    (watch / "beside" / "x").write_text("as it was", encoding="utf-8")
    here = watch / "a" / "case"
    here.mkdir(parents=True)
    forget_peak()
    before, begun = memory("VmRSS"), time.process_time()
    with no_network() as tried, chdir(here):
        try:
            silent = kind(random.Random(f"{seed} {case}"), here)
            if silent is not None:
                yield "silent", silent
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not is_typed(error):
                last = traceback.extract_tb(error.__traceback__)[-1]
                yield "untyped", f"{type(error).__name__}: {str(error)[:100]} ({Path(last.filename).name}:{last.lineno})"
    seconds, grown = time.process_time() - begun, memory("VmHWM") - before
    if seconds > SECONDS:
        yield "slow", f"{seconds:.0f} s"
    if grown > BYTES:
        yield "memory", f"{grown / 1e9:.2f} GB"
    if tried:
        yield "network", ", ".join(tried)
    outside = {path: what for path, what in contents(watch).items() if not path.startswith("a")}
    if outside != {"beside": None, "beside/x": b"as it was"}:
        yield "outside", f"{sorted(outside)}"


def order(cases: int) -> list[Kind]:
    """The kinds of so many cases: each once, then by their shares."""
    draw = random.Random(0)
    kinds = list(KINDS)
    return kinds[:cases] + draw.choices(kinds, list(KINDS.values()), k=max(cases - len(kinds), 0))


def run(cases: int, seed: int) -> list[Wrong]:
    """What went wrong in so many cases."""
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepare()
        for case, kind in enumerate(order(cases)):
            with tempfile.TemporaryDirectory() as watch:
                wrong += [Wrong(kind.__name__, case, judge, what) for judge, what in judged(kind, case, seed, Path(watch))]
            if case % 500 == 0:
                gc.collect()
    return wrong


def table(cases: int, wrong: list[Wrong]) -> Iterator[str]:
    """Cases and failures by kind and judge."""
    ran, failed = Counter(kind.__name__ for kind in order(cases)), Counter((one.kind, one.judge) for one in wrong)
    yield f"{'kind':<16}{'cases':>7}" + "".join(f"{judge:>9}" for judge in JUDGES)
    for kind in ran:
        yield f"{kind:<16}{ran[kind]:>7}" + "".join(f"{failed[kind, judge]:>9}" for judge in JUDGES)
    yield f"{'all':<16}{cases:>7}" + "".join(f"{sum(one.judge == judge for one in wrong):>9}" for judge in JUDGES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = run(given.cases, given.seed)
    for one in found[:100]:
        print(f"{one.kind} {one.case} {one.judge}: {one.what}")
    print(*table(given.cases, found), sep="\n")
    sys.exit(bool(found))
