"""The page in a real Chromium: picked, scrubbed, played, argued with, by keyboard alone, offline, light and dark, wide and narrow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve import drives
from alpamayo_r1.serve.queue import Limits
from alpamayo_r1.testing import tiny_checkpoint
from support.golden15 import GOLDEN15
from support.service import served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_spec("playwright"), reason="needs Playwright: pip install playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SHOWN = 'html[data-shown]:not([data-shown=""])'
WAIT = 60_000
SHORT = Limits(max_tokens=8)
"""A random model never stops by itself."""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A tiny checkpoint, and an evaluation of two of the bundled clips."""
    from alpamayo_r1.evaluate import EvalConfig, evaluate

    folder = tmp_path_factory.mktemp("page")
    tiny_checkpoint(folder / "tiny")
    options = PlanOptions(samples=1, seed=42, max_tokens=4, steps=1)
    list(evaluate(EvalConfig(str(folder / "tiny"), "sample", "2", "5.1", options), folder / "eval"))
    return folder


@pytest.fixture(scope="module")
def url(place) -> Iterator[str]:
    planner = Planner.of(*load_checkpoint(place / "tiny", dtype=torch.float32))
    with (
        pytest.MonkeyPatch.context() as smaller,
        open_source("sample") as source,
        served(planner, source, evaluations=[place / "eval"], limits=SHORT) as found,
    ):
        smaller.setattr(drives, "WIDTH", 96)
        smaller.setattr(drives, "HEIGHT", 54)
        yield found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as found:
        chromium = found.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url, request) -> Iterator:
    """The page, shown, in a context that may ask nobody but the service; at the end nothing may have gone wrong in it."""
    how = getattr(request, "param", {})
    context = browser.new_context(viewport={"width": how.get("width", 1440), "height": 900}, color_scheme=how.get("scheme", "light"))
    found, wrong, outside = context.new_page(), [], []
    found.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("request", lambda asked: None if asked.url.startswith((url, "blob:", "data:")) else outside.append(asked.url))
    found.set_default_timeout(WAIT)
    found.goto(url)
    found.wait_for_selector(SHOWN)
    yield found
    context.close()
    expected = how.get("refused", "nothing is refused")  # Chromium itself writes of a request that was answered with an error
    assert [text for text in wrong if expected not in text] == [] and outside == []


def pixels(page, selector: str) -> str:
    """What a canvas shows."""
    return page.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def until(page, name: str, count: int) -> None:
    """Waits until the page has played or driven so many steps."""
    page.wait_for_function(f"() => Number(document.documentElement.dataset.{name}) >= {count}")


def shown_t0(page) -> int:
    return int(page.locator("html").get_attribute("data-shown").split()[-1])


def test_it_shows_a_clip_and_another_one_that_is_picked(page):
    assert page.locator("#cameras canvas").count() == 4 and page.locator("[data-chip]").count() == 3
    before, first = pixels(page, "#cameras canvas"), page.locator("html").get_attribute("data-shown")
    page.select_option("#clip", index=1)
    page.wait_for_selector(f'html[data-shown]:not([data-shown=""]):not([data-shown="{first}"])')
    assert pixels(page, "#cameras canvas") != before


@pytest.mark.parametrize("hash", ["#clip=none&t0=6000000", "#t0=soon", "#t0="])
def test_an_address_that_says_nonsense_shows_the_first_moment(page, hash):
    first = page.locator("html").get_attribute("data-shown")
    page.evaluate("(hash) => { location.hash = hash; }", hash)
    page.reload()
    page.wait_for_selector(f'html[data-shown="{first}"]')


def test_scrubbing_back_to_what_was_seen_is_at_once(page):
    first = shown_t0(page)
    page.focus("#time")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f'html[data-shown$=" {first + 100_000}"]')
    shown = """(t0) => { const bar = document.querySelector("#time"); bar.value = t0; const began = performance.now();
      bar.dispatchEvent(new Event("input"));
      return [document.documentElement.dataset.shown.endsWith(` ${t0}`), performance.now() - began]; }"""
    at_once, took = page.evaluate(shown, first)
    assert at_once and took < 500  # 50 ms on an idle machine: see docs/serving.md


def test_ten_steps_are_played(page):
    page.evaluate("() => { const bar = document.querySelector('#time'); bar.value = bar.min; bar.dispatchEvent(new Event('input')); }")
    page.wait_for_selector(SHOWN)
    first = shown_t0(page)
    page.click("#play")
    until(page, "played", 10)
    page.click("#play")
    page.wait_for_selector('#play[aria-pressed="false"]')
    assert page.locator("[data-chip]").count() >= 1, "what was played stays until all samples are there"
    page.wait_for_selector(SHOWN)
    assert page.locator("[data-chip]").count() == 3
    assert shown_t0(page) >= first + 1_000_000 and page.locator("#notice").is_hidden()


def test_a_typed_reason_bends_the_path_beside_the_free_plan(page):
    page.fill("#reason", "Stop for the red light")
    free, above = pixels(page, "#cameras canvas"), pixels(page, "#above-canvas")
    page.press("#reason", "Enter")
    page.wait_for_selector("[data-chip='other 0']")
    assert page.locator(".variant").count() == 2 and page.locator("#cameras figure.large").count() == 2
    assert "Stop for the red light" in page.inner_text(".variant:nth-child(2) h2")
    assert pixels(page, "#above-canvas") != above and pixels(page, "#cameras figure:nth-child(2) canvas") not in ("", free)
    page.press("#reason", "Escape")
    page.wait_for_selector("[data-chip='other 0']", state="detached")
    assert pixels(page, "#above-canvas") == above and page.locator("#cameras figure.large").count() == 1


@pytest.mark.parametrize("page", [{"refused": "status of 422"}], indirect=True, ids=["refused"])
def test_a_reason_that_does_not_fit_is_told_why(page):
    page.fill("#reason", "<|cot_end|>")
    page.press("#reason", "Enter")
    page.wait_for_selector("#notice:not([hidden])")
    assert "must be plain words" in page.inner_text("#notice")
    page.fill("#reason", "Stop")
    page.press("#reason", "Enter")
    page.wait_for_selector("[data-chip='other 0']")
    assert page.locator("#notice").is_hidden()


def test_pointing_at_a_sample_lights_its_path_words_and_curves(page):
    parts = ["#above-canvas", "#cameras canvas", "#speed"]
    before = [pixels(page, part) for part in parts]
    page.hover("[data-chip='free 2']")
    page.wait_for_selector("[data-chip='free 2'].lit")
    assert all(pixels(page, part) != old for part, old in zip(parts, before, strict=True))
    page.mouse.move(5, 5)
    page.wait_for_selector("[data-chip='free 0'].lit")
    assert [pixels(page, part) for part in parts] == before
    page.click("[data-chip='free 1']")
    page.mouse.move(5, 5)
    assert page.locator("[data-chip='free 1']").get_attribute("aria-pressed") == "true"


def test_by_keyboard_alone(page):
    first = shown_t0(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(f'html[data-shown$=" {first + 100_000}"]')
    page.keyboard.press("2")
    page.wait_for_selector("[data-chip='free 1'][aria-pressed=true]")
    page.keyboard.press("r")
    page.keyboard.type("Stop")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-chip='other 0']")
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-chip='other 0']", state="detached")
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id || document.activeElement.dataset.chip"))
    assert {"clip", "time", "play", "reason", "samples", "seed", "theme", "free 0", "free 2"} <= reached


def test_a_drive_is_taken_over_by_words_and_scrubbed(page):
    before = page.locator("html").get_attribute("data-shown")
    page.click("#open-drive")
    page.click("#drive-form button[type=submit]")
    until(page, "driven", 3)
    assert "its own words" in page.inner_text(".variant h2")
    page.fill("#reason", "Stop now")
    page.press("#reason", "Enter")
    page.wait_for_selector("text=Taken over: Stop now")
    page.click("#play")
    page.wait_for_selector('#play[aria-pressed="false"]')
    last, taken = shown_t0(page), pixels(page, "#cameras canvas")
    page.eval_on_selector("#time", "bar => { bar.value = bar.min; bar.dispatchEvent(new Event('input')); }")
    assert shown_t0(page) < last and pixels(page, "#cameras canvas") != taken and "its own words" in page.inner_text(".variant h2")
    assert page.locator("#settings").is_hidden()
    page.evaluate("() => delete document.documentElement.dataset.driven")
    page.click("#drive-again")
    until(page, "driven", 1)
    assert shown_t0(page) < last and page.input_value("#reason") == ""
    page.click("#drive-stop")
    page.wait_for_selector("text=Taken over: Stop now")
    page.click("#drive-leave")
    page.wait_for_selector(f'html[data-shown="{before}"]')
    assert page.input_value("#reason") == "" and page.locator(".variant").count() == 1
    assert page.locator("#drive-tools").is_hidden() and page.locator("#settings").is_visible()


def test_an_evaluation_leads_to_its_scene(page):
    first = page.locator("html").get_attribute("data-shown")
    page.click("#open-evaluation")
    page.wait_for_selector("#worst button")
    assert page.locator("#worst button").count() == 2 and "rows" in page.inner_text("#evaluation-about")
    other = next(i for i in range(2) if page.locator("#worst button").nth(i).inner_text().split(" · ")[1][:8] != first[:8])
    page.locator("#worst button").nth(other).click()
    page.wait_for_selector(f'html[data-shown]:not([data-shown=""]):not([data-shown="{first}"])')
    assert shown_t0(page) == 5_100_000


def test_nothing_hinders_anyone(page):
    """axe-core finds nothing serious, and nothing is wider than the screen, wide or narrow, light or dark; with the help open too."""
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
    page.fill("#reason", "Stop")
    page.press("#reason", "Enter")
    page.wait_for_selector("[data-chip='other 0']")
    page.evaluate(axe)
    ground = set()
    for width, scheme, step in product((1440, 390), ("light", "dark"), ("page", "help")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        if step == "help":
            page.click("#open-help")
        ground.add(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        found = page.evaluate("() => axe.run()")["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == [], (width, scheme, step)
        assert page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth") <= 0, (width, scheme, step)
        page.keyboard.press("Escape")
        page.fill("#reason", "Stop")
    assert len(ground) == 2


def test_the_theme_is_kept(page):
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.keyboard.press("t")
    page.keyboard.press("t")
    dark = page.evaluate(ground)
    page.reload()
    page.wait_for_selector(SHOWN)
    assert light != dark == page.evaluate(ground)


def test_the_service_describes_itself(browser, url):
    page = browser.new_page()
    page.goto(f"{url}/docs")
    page.wait_for_selector("html[data-ready]")
    text = page.inner_text("main")
    assert "POST /api/plan" in text and "flow_temperature" in text and "m/s^2" in text
    page.close()


def test_alpamayo_15_is_told_where_to_go_and_asked(browser, place):
    planner = Planner.of(*load_checkpoint(GOLDEN15 / "checkpoint", dtype=torch.float32))
    with open_source("sample") as source, served(planner, source, limits=SHORT) as url:
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        page.goto(url)
        page.fill("#samples", "1")
        page.wait_for_selector(SHOWN)
        page.fill("#navigation", "Turn left in 30m")
        page.press("#navigation", "Enter")
        page.wait_for_selector("[data-chip='other 0']")
        before = pixels(page, "#above-canvas")
        page.eval_on_selector(
            "#guidance", "bar => { bar.value = 3; bar.dispatchEvent(new Event('input')); bar.dispatchEvent(new Event('change')); }"
        )
        page.wait_for_selector("text=guidance 3")
        page.wait_for_selector("[data-chip='other 0']")
        assert pixels(page, "#above-canvas") != before
        page.fill("#question", "Describe the scene.")
        page.press("#question", "Enter")
        page.wait_for_selector("#said .answer")
        assert page.inner_text("#said .mine") == "Describe the scene."
        page.close()


def test_what_is_shown_is_what_was_planned(page, place):
    """The numbers behind the page are the planner's."""
    reply = page.evaluate(
        """async () => { const { peek, planKey } = await import('/page/api.js');
        const [clip, t0] = document.documentElement.dataset.shown.split(' ');
        return JSON.stringify(peek(planKey(clip, Number(t0), {samples: 3, seed: 42, max_tokens: 8}))); }"""
    )
    found = json.loads(reply)
    planner = Planner.of(*load_checkpoint(place / "tiny", dtype=torch.float32), fast=True)
    with open_source("sample") as source:
        sample = source.clip(found["clip_id"]).sample(found["t0_us"], need_future=False)
    assert torch.equal(torch.tensor(found["plans"][0]["xyz"]), planner.plan(sample.observation, samples=3, seed=42, max_tokens=8).xyz)
