"""How fast the page is in headless Chromium: first picture after `alpamayo-r1 serve`, scrubs to what was seen and what was not, play.

    python bench/page.py [--checkpoint small] [--samples 1]

Needs the extra `serve`, Playwright and Chromium. Prints one JSON line with the machine's load beside it: figures of a busy machine say
little. first_picture_s counts from the start of the process to the first moment's cameras,
first_plan_s to the first plan drawn on them. step_cpu_s: processor time that the service and the browser take per
step that is played, and first_picture_cpu_s until the first picture; these depend less on who else is at work.
"""

from __future__ import annotations

from _head import ROOT

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

PLAYED = 20
"""Steps that are played."""

SHOWN = 'html[data-shown]:not([data-shown=""])'
PICTURED = 'html[data-pictured]:not([data-pictured=""])'
CACHED = """() => { const bar = document.querySelector('#time'), took = [];
  for (let i = 0; i < 20; i++) { bar.value = Number(bar.value) + (i % 2 ? 1e5 : -1e5); const began = performance.now();
    bar.dispatchEvent(new Event('input')); took.push(performance.now() - began); } return took; }"""


def cpu_s(pid: int, but: tuple[int, ...] = ()) -> float:
    """Processor seconds of a process and of those that it started, but some."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
        used[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found, todo = 0.0, [pid]
    while todo:
        one = todo.pop()
        found += used.get(one, 0.0)
        todo += [child for child in parents.get(one, []) if child not in but]
    return found


def main() -> None:
    """Starts a service, drives a browser, prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="small")
    parser.add_argument("--samples", default="1")
    given = parser.parse_args()
    began = time.monotonic()
    command = [sys.executable, "-m", "alpamayo_r1", "serve", "--port", "0", "--checkpoint", given.checkpoint]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    try:
        assert service.stdout is not None
        url = service.stdout.readline().split()[1]
        answers = time.monotonic() - began
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(url)
            page.wait_for_selector(PICTURED)
            first, used = time.monotonic() - began, cpu_s(service.pid)
            page.wait_for_selector(SHOWN)
            planned = time.monotonic() - began
            page.fill("#samples", given.samples)
            page.press("#samples", "Enter")
            page.wait_for_selector(SHOWN)
            page.focus("#time")
            scrubs = []
            for _ in range(5):
                t0 = int(page.locator("html").get_attribute("data-shown").split()[-1]) + 100_000
                at = time.monotonic()
                page.keyboard.press("ArrowRight")
                page.wait_for_selector(f'html[data-shown$=" {t0}"]')
                scrubs.append(time.monotonic() - at)
            cached = page.evaluate(CACHED)
            before = cpu_s(service.pid), cpu_s(os.getpid(), (service.pid,))
            page.click("#play")
            page.wait_for_function(f"() => Number(document.documentElement.dataset.played) >= {PLAYED}")
            played = page.inner_text("#state")
            after = cpu_s(service.pid), cpu_s(os.getpid(), (service.pid,))
            browser.close()
    finally:
        service.kill()
        service.wait()
    found = {
        "service_answers_s": round(answers, 1),
        "first_picture_s": round(first, 1),
        "first_plan_s": round(planned, 1),
        "uncached_scrub_s": round(statistics.median(scrubs), 2),
        "cached_scrub_ms": round(statistics.median(cached)),
        "play": played,
        "step_cpu_s": {who: round((b - a) / PLAYED, 3) for who, a, b in zip(("service", "browser"), before, after, strict=True)},
        "first_picture_cpu_s": round(used, 1),
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
