"""SIGKILL at random moments: `alpamayo-r1 eval` and `alpamayo-r1 world` from the command line, given again until done, equal a whole run.

    python checks/kills.py --eval 40 --world 20

One whole run of each verb is timed first: when its first result is there, and how long it goes on. Then runs are killed at random moments,
most of them in between, each folder again and again until its command ends by itself; what is there then must equal the whole run to the
byte, with nothing left over. Only kills of a process that was alive count. Prints a line per verb; exits with 1 on any difference.
"""

from __future__ import annotations

import _head  # noqa: F401

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = ("--width", "32", "--height", "18", "--seconds", "0.6", "--start", "4.7")
LIMIT_S = 300.0
EARLY = 0.2
"""Share of the kills that are meant for the time before a run's first result."""


@dataclass(frozen=True)
class Verb:
    """A command that writes to the folder `out`. results: what its work gives, file after file; durations: files of times, not compared."""

    name: str
    options: Sequence[str]
    results: str
    durations: Sequence[str] = ()

    def start(self, folder: Path) -> subprocess.Popen[bytes]:
        """The command in a process of its own; what it says goes to said.txt beside its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "alpamayo_r1", self.name, *self.options, "--out", "out"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        with (folder / "said.txt").open("wb") as said:
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)

    def written(self, folder: Path) -> dict[Path, int]:
        """When each of its results was written."""
        return {path: path.stat().st_mtime_ns for path in (folder / "out").glob(self.results)}

    def begins(self, process: subprocess.Popen[bytes], folder: Path, before: dict[Path, int]) -> bool:
        """Waits until the process writes other results than those before; False where it ended without."""
        since = time.monotonic()
        while self.written(folder) == before:
            if process.poll() is not None:
                return False
            if time.monotonic() - since > LIMIT_S:
                raise TimeoutError(f"{self.name} did not begin within {LIMIT_S:g} s: {(folder / 'said.txt').read_text(encoding='utf-8')}")
            time.sleep(0.002)
        return process.poll() is None

    def content(self, folder: Path) -> dict[str, str]:
        """Name -> digest of every file that it wrote."""
        files = [path for path in sorted((folder / "out").rglob("*")) if path.is_file()]
        names = {path.relative_to(folder / "out").as_posix(): path for path in files}
        kept = {name: path for name, path in names.items() if not name.startswith(tuple(self.durations))}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()} | dict.fromkeys(names.keys() - kept, "")


@dataclass
class Count:
    """What a verb went through."""

    kills: int = 0
    midway: int = 0
    finished: int = 0
    differences: int = 0


def kill(verb: Verb, wanted: int, folder: Path, chance: random.Random) -> Count:
    """Kills runs of the verb until `wanted` of them were killed alive, and compares each folder that was finished with a whole run."""
    began = time.monotonic()
    process = verb.start(folder / "whole")
    verb.begins(process, folder / "whole", {})
    startup = time.monotonic() - began
    if process.wait(LIMIT_S):
        raise RuntimeError(f"the whole run of {verb.name} failed: {(folder / 'whole/said.txt').read_text(encoding='utf-8')}")
    writing = time.monotonic() - began - startup
    whole, count, number = verb.content(folder / "whole"), Count(), 0
    while count.kills < wanted:
        number += 1
        here = folder / str(number)
        while count.kills < wanted and not killed_or_done(verb, here, startup, writing, chance, count):
            pass
        finish(verb, here, whole, count)
    print(
        f"{verb.name}: {count.kills} kills, {count.midway} of them between its first result and its end ({startup:.1f} s after its start, "
        f"{writing:.1f} s long); {count.finished} folders finished, {count.differences} differ from a whole run",
        flush=True,
    )
    return count


def killed_or_done(verb: Verb, here: Path, startup: float, writing: float, chance: random.Random, count: Count) -> bool:
    """Starts the command and kills it at a random moment. Whether it was done by then; counts the kill otherwise."""
    before = verb.written(here)
    process = verb.start(here)
    if chance.random() < EARLY:
        alive = waits(process, chance.uniform(0, startup))
    else:
        moment = chance.uniform(0, writing)
        alive = verb.begins(process, here, before) and waits(process, moment)
    if not alive:
        return True
    process.send_signal(signal.SIGKILL)
    process.wait()
    count.kills += 1
    count.midway += verb.written(here) != before
    return False


def waits(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits; whether the process is alive then."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        return True


def finish(verb: Verb, here: Path, whole: dict[str, str], count: Count) -> None:
    """Gives the command until it is done, and compares."""
    code = verb.start(here).wait(LIMIT_S)
    found = verb.content(here)
    count.finished += 1
    if code or found != whole:
        count.differences += 1
        unlike = sorted(name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name))
        print(f"{verb.name} in {here}: exit code {code}, {', '.join(unlike)} differ\n{(here / 'said.txt').read_text(encoding='utf-8')}")


def main(arguments: argparse.Namespace) -> int:
    """Runs both; 1 where anything differs."""
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clips = Verb("world", ("--seed", "810000", "--clips", str(arguments.clips), *SMALL), "**/*.zip")
        if arguments.eval and clips.start(folder / "clips").wait(LIMIT_S):
            raise RuntimeError((folder / "clips/said.txt").read_text(encoding="utf-8"))
        model = ("--checkpoint", str(ROOT / "tests/golden/checkpoint"), "--data", str(folder / "clips/out"), "--threads", "1")
        plan = ("--device", "cpu", "--samples", "6", "--max-tokens", "48")
        verbs = {
            "eval": Verb(
                "eval", (*model, *plan), "rows/0*.parquet", ("rows/", "timing.parquet", "digests.json", "summary.json", "report.html")
            ),
            "world": Verb("world", ("--seed", "820000", "--clips", str(max(2, arguments.clips // 2 - 1)), *SMALL), "**/*.zip"),
        }
        counts = [kill(verb, getattr(arguments, name), folder / name, chance) for name, verb in verbs.items() if getattr(arguments, name)]
    return int(any(count.differences for count in counts))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=int, default=40, help="kills of `alpamayo-r1 eval`")
    parser.add_argument("--world", type=int, default=20, help="kills of `alpamayo-r1 world`")
    parser.add_argument("--clips", type=int, default=8, help="that eval plans; world writes less than half as many")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    sys.exit(main(parser.parse_args()))
