"""How fast the page is in headless Chromium: first picture after `alpamayo-r1 serve`, scrubs to what was seen and what was not, play.

    python bench/page.py [--checkpoint small] [--samples 1]

Needs the extra `serve`, Playwright and Chromium. Prints one JSON line with the machine's load beside it: figures of a busy machine say
little. first_picture_s counts from the start of the process to the first moment's cameras,
first_plan_s to the first plan drawn on them.
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

from playwright.sync_api import sync_playwright

SHOWN = 'html[data-shown]:not([data-shown=""])'
PICTURED = 'html[data-pictured]:not([data-pictured=""])'
CACHED = """() => { const bar = document.querySelector('#time'), took = [];
  for (let i = 0; i < 20; i++) { bar.value = Number(bar.value) + (i % 2 ? 1e5 : -1e5); const began = performance.now();
    bar.dispatchEvent(new Event('input')); took.push(performance.now() - began); } return took; }"""


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
            first = time.monotonic() - began
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
            page.click("#play")
            page.wait_for_function("() => Number(document.documentElement.dataset.played) >= 10")
            played = page.inner_text("#state")
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
        "load_average": os.getloadavg()[0],
        "cores": os.cpu_count(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
