"""The report: whole in one file, its structure, its pictures; and opened in Chromium where there is one."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.evaluate import EvalConfig, evaluate, report, summarise
from alpamayo_r1.evaluate.report import best, choose, histogram, write_report
from alpamayo_r1.evaluate.summary import planned_rows, read
from alpamayo_r1.evaluate.worker import threads
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*ended without")]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """An evaluation of three clips and one that does not exist, with its report."""
    root = tmp_path_factory.mktemp("report")
    with threads(1):
        ids = write_clips(
            range(810_020, 810_023), root / "clips", width=128, height=72, seconds=0.5, t_start=4.75, supersample=1, threads=1
        )
        (root / "list.txt").write_text("\n".join([*ids, "no-such-clip"]))
        config = EvalConfig(
            str(GOLDEN / "checkpoint"),
            str(root / "clips"),
            str(root / "list.txt"),
            plan=PlanOptions(samples=2, seed=42, max_tokens=4, steps=2),
            threads=1,
        )
        list(evaluate(config, root / "out", command="alpamayo-r1 eval --out out"))
        write_report(root / "out", summarise(root / "out"))
    return root / "out"


@pytest.fixture
def unpictured(monkeypatch) -> None:
    """Reports without clips' pages, for what is said beside them."""
    monkeypatch.setattr(report, "_page", lambda source, table, place, summary: "")


class Page(HTMLParser):
    """What a browser would find: elements that are not closed, addresses, pictures, cells of the table of rows."""

    VOID = ("meta", "link", "img", "rect", "line", "th", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.addresses, self.pictures, self.rows, self.text = [], [], [], 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        self.rows += tag == "tr" and "tbody" in self.open

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_one_file_with_everything_in_it(out):
    page = Page((out / "report.html").read_text())
    assert page.open == [] and page.rows == 4
    assert all(address.startswith(("data:", "#")) for address in page.addresses), "something would be fetched"
    text = (out / "report.html").read_text()
    named = set(re.findall(r"id=\"?([\w-]+)", text))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= named, "a link that leads nowhere"
    assert len(re.findall(r'id="page-\d+"', text)) == 3 and len(re.findall(r"<tr id=row-\d+", text)) == 4
    assert len(page.pictures) == 3
    for picture in page.pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture.split(",", 1)[1])))
        image.load()
        assert image.format == "JPEG" and image.size == (1920, 1080)


def test_what_it_says(out):
    text = Page((out / "report.html").read_text()).text
    summary = json.loads((out / "summary.json").read_text())
    assert "minADE, all 6.4 s" in text and "to 5 s" in text and "to 6.4 s" not in text, "the whole path is shown once"
    assert f"{summary['figures']['min_ade']['mean']:.3f} m" in text and f"{summary['figures']['cv_min_ade']['mean']:.3f} m" in text
    assert "alpamayo-r1 eval --out out" in text and summary["versions"]["torch"] in text
    assert "free to share" in text and "1 failed" in text and 'UnknownClip: no clip "no-such-clip"' in text
    for clip_id in pq.read_table(out / "results.parquet")["clip_id"].to_pylist()[:3]:
        assert clip_id[:8] in text


def test_an_interval_that_is_not_there_is_not_claimed(out, tmp_path, unpictured):
    shutil.copytree(out, tmp_path / "out")
    summary = summarise(tmp_path / "out")
    found = summary["figures"]["min_ade"]
    found["low"], found["high"], found["clips"] = 1.0, 2.0, 12
    assert "mean minADE of 2,\n95 % interval over 12 clips" in Page(write_report(tmp_path / "out", summary).read_text()).text
    found["low"], found["high"], found["clips"] = None, None, 1
    assert "no 95 % interval over 1 clip" in Page(write_report(tmp_path / "out", summary).read_text()).text


def test_a_row_shows_the_words_of_the_sample_whose_error_it_shows(out):
    """The table holds the best sample's words, and what a row opens to holds every sample's, with its own error."""
    text = (out / "report.html").read_text()
    details = json.loads(re.search(r"<script type=\"application/json\" id=details>(.*?)</script>", text, re.S)[1])
    rows = planned_rows(read(out)).to_pylist()
    assert len(details) == 3
    for row in rows:
        found, errors = details[str(row["index"])], row["sample_ade"]
        assert found["best"] == errors.index(min(errors)) and found["words"] == row["reasoning"]
        assert found["errors"] == [pytest.approx(e, abs=1e-3) for e in errors] and len(found["plans"]) == 2
        assert found["plans"][0][-1] == [pytest.approx(v, abs=0.01) for v in row["pred_xyz"][63 * 3 : 63 * 3 + 2]]
        assert found["truth"][0] == [pytest.approx(v, abs=0.01) for v in row["gt_xyz"][4 * 3 : 4 * 3 + 2]]
        assert f"--clip {row['clip_id']} --t0 5.1 --samples 2 --seed 42" in found["command"]


def test_best_takes_the_smallest_error_that_is_known():
    assert best({"sample_ade": [math.nan, 2.0, 1.0]}) == 2 and best({"sample_ade": None}) == 0 and best({"sample_ade": [math.nan]}) == 0


def test_words_cannot_leave_the_page(out, tmp_path):
    """Reasoning that looks like markup or the end of a script is text."""
    shutil.copytree(out, tmp_path / "out")
    table = pq.read_table(out / "results.parquet")
    nasty = "</script><img src=http://example.com/x.png>&amp; $^$"
    place = table.column_names.index("reasoning")
    words = [None if row is None else [nasty] * len(row) for row in table["reasoning"].to_pylist()]
    pq.write_table(table.set_column(place, "reasoning", [words]), tmp_path / "out/results.parquet")
    summary = summarise(tmp_path / "out")
    page = Page(write_report(tmp_path / "out", summary).read_text())
    assert page.open == [] and page.text.count(nasty) >= 3
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


def test_notes_are_counted(out, tmp_path, unpictured):
    shutil.copytree(out, tmp_path / "out")
    table = pq.read_table(out / "results.parquet")
    place, rows = table.column_names.index("notes"), len(table)
    counted = table.set_column(place, "notes", [[["history-fast"]] * (rows - 1) + [None]])
    pq.write_table(counted, tmp_path / "out/results.parquet")
    text = Page(write_report(tmp_path / "out", summarise(tmp_path / "out")).read_text()).text
    assert f"{rows - 1} × history-fast" in text


def test_the_notice_of_real_data(out, tmp_path):
    shutil.copytree(out, tmp_path / "real")
    settings = json.loads((out / "config.json").read_text())
    (tmp_path / "real" / "config.json").write_text(json.dumps(settings | {"source": "physical-ai-av"}))
    summary = summarise(tmp_path / "real")
    summary["config"]["data"] = "/nowhere"
    text = (write_report(tmp_path / "real", summary)).read_text()
    assert 'class="notice"' in text and "forbids redistributing" in text
    assert "None: the data set can&#x27;t be opened here" in text or "None: the data set can't be opened here" in text


def test_each_clip_is_shown_once(out):
    table = planned_rows(read(out))
    chosen = choose(table)
    places = [place for some in chosen.values() for place in some]
    assert sorted(places) == [0, 1, 2]
    errors = table["min_ade"].to_pylist()
    assert all(errors[b] <= errors[w] for b in chosen["Best"] for w in chosen["Worst"])


def test_a_histogram_counts_every_value():
    import numpy as np

    values = np.array([0.0, 1.0, 1.0, 2.0, math.nan, 100.0])
    shown = histogram(values, "x")
    assert sum(int(n) for n in re.findall(r": (\d+)</title>", shown)) == 5
    assert histogram(np.array([math.nan]), "x") == ""


PROBE = """
<script>
window.addEventListener("load", () => {
  const body = document.querySelector("#rows tbody"), place = 3, seen = [];
  const values = () => [...body.rows].map(row => row.cells[place].textContent);
  const head = document.querySelectorAll("#rows th")[place];
  seen.push(values()); head.click(); seen.push(values()); head.click(); seen.push(values());
  const pictures = [...document.images].map(image => image.complete && image.naturalWidth);
  const press = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const view = document.querySelector("#view"), name = () => document.querySelector("#name").textContent, walk = [];
  const link = document.querySelector("#rows a.open");
  link.focus(); link.click(); walk.push(view.open, name(), document.querySelectorAll("#samples li").length);
  press(view, "ArrowRight"); walk.push(name()); press(view, "ArrowLeft"); walk.push(name());
  const shown = document.querySelector("#picture img"); press(shown, "Enter"); walk.push(shown.className);
  view.close();
  const told = document.createElement("pre");
  const wide = document.documentElement.scrollWidth <= innerWidth;
  told.id = "probe"; told.textContent = JSON.stringify({seen, walk, wide, pictures, heading: head.textContent, errors: window.errors});
  document.body.append(told);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_in_chromium(out, tmp_path):
    page = (out / "report.html").read_text()
    catch = "<script>window.errors = []; window.addEventListener('error', e => window.errors.push(e.message));</script>"
    (tmp_path / "probe.html").write_text(page.replace("<head>", "<head>" + catch, 1).replace("</body>", PROBE + "</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=500,900",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    command = [CHROMIUM, *options, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    told = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1])
    assert told["errors"] == [] and "CONSOLE" not in done.stderr
    assert told["pictures"] == [1920, 1920, 1920] and told["heading"] == "minADE"
    opened, first, samples, second, again, size = told["walk"]
    assert opened and samples == 2 and first == again != second and "t0 5.1 s" in second and size == "full"
    assert told["wide"], "the page is wider than a window of 500 pixels"
    _, up, down = told["seen"]
    numbers = [float(v) for v in up if v != "-"]
    assert len(numbers) == 3 and numbers == sorted(numbers) and up[-1] == "-"
    assert [float(v) for v in down if v != "-"] == numbers[::-1] and down[-1] == "-"


def test_the_protocol_can_be_read_back(out):
    from alpamayo_r1.evaluate.protocol import read_config

    config = read_config(out / "config.json")
    assert config.plan.samples == 2 and dataclasses.asdict(config) == json.loads((out / "config.json").read_text())["config"]
