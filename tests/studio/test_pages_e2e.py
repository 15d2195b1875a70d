"""The pages of work in a real Chromium: unit, layer keeps, dream, paint, learn, runs; whole paths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src/innervision/studio/static/index.html"
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
SOON, LATE = 30_000, 120_000  # ms


@pytest.fixture(scope="module")
def workshop(guest: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio of the guest, with a small data set of squares and discs to learn from."""
    if not STATIC.is_file():
        pytest.skip("the studio's pages are not built: make studio")
    home = tmp_path_factory.mktemp("home")
    for number in range(40):
        for kind in ("disc", "square"):
            picture = Image.new("L", (28, 28))
            side = 8 + number % 12
            box = (14 - side // 2, 14 - side // 2, 14 + side // 2, 14 + side // 2)
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=255)
            folder = home / "data" / "shapes" / kind
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{number:02}.png")
    command = [sys.executable, "-m", "innervision", "studio", "--port", "0", "--no-browser", "--net", guest]
    process = subprocess.Popen(
        [*command, "--runs", str(home / "runs"), "--threads", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "INNERVISION_HOME": str(home)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, f"the studio did not start: {line!r}"
        yield line.split()[2]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def unfold(page: Any) -> None:
    """Open what the form has folded away."""
    page.locator("form > details > summary").click()


def fill(page: Any, **fields: str) -> None:
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)


def ended(page: Any, state: str = "done") -> None:
    page.wait_for_selector(f".bar .state.{state}", timeout=LATE)


def drawn(page: Any, selector: str) -> None:
    """Wait until every picture that a selector names has come, and none is broken."""
    page.wait_for_function(
        """(selector) => {
            const found = [...document.querySelectorAll(selector)];
            return found.length > 0 && found.every((each) => each.complete && each.naturalWidth > 0);
        }""",
        arg=selector,
        timeout=SOON,
    )


def pixels(page: Any, selector: str) -> str:
    return page.evaluate("(selector) => document.querySelector(selector).toDataURL()", selector)


def dream(page: Any, workshop: str, *, steps: str = "2", layers: str = "act") -> None:
    page.goto(f"{workshop}#/dream")
    page.wait_for_selector("form")
    fill(page, Layers=layers, Longest_side="48", Octaves="1", Steps=steps)


def test_a_newcomer_dreams_and_goes_on_from_there(page: Any, workshop: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    Image.linear_gradient("L").resize((60, 40)).convert("RGB").save(mine)
    dream(page, workshop)
    page.set_input_files("form input[type=file]", mine)
    page.wait_for_selector("form [aria-label='mine.png'][aria-pressed=true]")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar")
    page.reload()  # closing the page stops nothing
    ended(page)
    drawn(page, ".pair img")
    page.get_by_label("Slide between before and after").press("ArrowRight")
    with page.expect_download() as got:
        page.get_by_role("link", name="Download").click()
    with Image.open(got.value.path()) as picture:
        assert picture.size == (48, 32)
    assert page.locator(".curves path").count() >= 1
    page.get_by_role("button", name="Go on from here").click()
    page.wait_for_selector("form .chosen img[alt^='dream ']")
    assert page.get_by_label("Longest side").input_value() == "48"  # the run's settings are kept
    page.goto(f"{workshop}#/runs")
    page.wait_for_selector("main ul a:has-text('Dream')")


@pytest.mark.slow
def test_what_a_command_refuses_is_told_in_its_words(page: Any, workshop: str) -> None:
    dream(page, workshop, layers="nowhere")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.failed, .toast.bad", timeout=LATE)
    assert "nowhere" in page.inner_text("#app")


def test_a_field_says_what_is_wrong_with_it(page: Any, workshop: str) -> None:
    dream(page, workshop, steps="many")
    page.get_by_role("button", name="Dream", exact=True).click()
    assert page.get_by_label("Steps", exact=True).get_attribute("aria-invalid") == "true"
    assert page.locator(".bar").count() == 0


@pytest.mark.slow
def test_jobs_queue_and_are_stopped(page: Any, workshop: str) -> None:
    dream(page, workshop, steps="100000")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.running", timeout=SOON)
    first = page.url
    page.wait_for_function("location.hash.includes('run=')")
    fill(page, Steps="1")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.queued", timeout=SOON)
    assert page.url != first
    page.go_back()
    page.wait_for_selector(".bar .numbers", timeout=LATE)  # it is at a step
    page.get_by_role("button", name="Stop", exact=True).click()
    ended(page, "stopped")
    page.go_forward()
    ended(page)


@pytest.mark.slow
def test_paint_is_stopped_resumed_and_finished(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/paint")
    page.wait_for_selector("form .styles li")  # a style is offered
    fill(page, Longest_side="64", Steps="400")
    unfold(page)
    fill(page, Content_layers="act", Style_layers="act,block.bend", Stages="none", Every="5")
    page.get_by_role("button", name="Paint", exact=True).click()
    drawn(page, ".stage .strip img")  # a snapshot has come
    page.get_by_role("button", name="Stop", exact=True).click()
    ended(page, "stopped")
    drawn(page, ".pair img")
    page.get_by_role("button", name="Resume", exact=True).click()
    ended(page)
    assert "400 of 400" in page.inner_text(".bar")


@pytest.mark.slow
def test_layers_keep_less_and_less(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/keeps")
    page.wait_for_selector("form")
    fill(page, Layers="act,block.bend", Longest_side="32", Steps="10")
    page.get_by_role("button", name="Invert the layers").click()
    ended(page)
    drawn(page, "main [role=toolbar] button img")
    assert page.locator("main [role=toolbar] button").count() == 2
    page.locator("main [role=toolbar] button").first.click()
    assert "act" in page.inner_text(".stage .foot strong")
    assert page.locator(".curves path").count() == 2


@pytest.mark.slow
def test_a_network_learns_and_is_asked(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/learn")
    page.wait_for_selector("form")
    page.get_by_label("Recipe", exact=True).select_option("lenet5-modern")
    page.get_by_label("Pictures", exact=True).select_option("shapes")
    fill(page, Epochs="4", Batch="16", Held_out="0.25")
    assert page.get_by_label("Snapshot each … epochs").input_value() == "1"
    page.get_by_role("button", name="Train", exact=True).click()
    ended(page)
    page.wait_for_selector("table tbody td")
    assert "disc" in page.inner_text("table")
    assert page.locator(".curves path").count() >= 3
    page.wait_for_selector("h2:has-text('mistakes')")
    page.locator("section[aria-label='Ask this network'] .thumb").first.click()
    page.wait_for_selector("section[aria-label='Ask this network'] ol .numbers")
    told = page.inner_text("section[aria-label='Ask this network'] ol")
    assert "disc" in told and "square" in told
    page.wait_for_selector(".filters canvas")
    before = pixels(page, ".filters canvas")
    page.get_by_label("Epoch", exact=True).fill("0")
    page.wait_for_function(
        "(before) => document.querySelector('.filters canvas').toDataURL() !== before", arg=before
    )  # they have moved since the beginning
    run = page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('run')")
    net = f"run-{run}"
    names = page.evaluate(
        "async (net) => (await (await fetch(`/api/networks/${net}`)).json()).layers.map((l) => l.name)", net
    )
    page.goto(f"{workshop}#/unit/{net}/{names[1]}/0?picture=sample-chelsea")
    page.wait_for_selector("h2:has-text('Over training')")
    page.get_by_label("Epoch", exact=True).fill("1")
    page.wait_for_selector(".figures figcaption p:has-text('Epoch 1')")
    drawn(page, "section .figures img")


@pytest.mark.slow
def test_an_index_shows_what_excites_a_unit_most(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/unit/guest.py-build/act/1?picture=sample-chelsea&size=64")
    page.get_by_role("link", name="Make an index").click()
    page.wait_for_selector("h1:has-text('units')")
    page.locator("form select").first.select_option("shapes")
    page.get_by_role("button", name="Start units").click()
    ended(page)
    page.goto(f"{workshop}#/unit/guest.py-build/act/1?picture=sample-chelsea&size=64")
    page.wait_for_selector("h2:has-text('Their deconvolutions')")
    drawn(page, ".top img")


@pytest.mark.slow
def test_a_units_page_is_a_link(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/unit/guest.py-build/block.bend/2?picture=sample-chelsea&size=64")
    drawn(page, ".figures img")
    page.wait_for_selector("main a.neighbour")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash.includes('/block.bend/3?')")
    page.wait_for_selector("h1:has-text('Channel 3')")
    page.wait_for_selector(".figures a:has-text('Download')", timeout=LATE)  # what excites it is made
    page.locator("main a.neighbour").first.click()
    page.wait_for_function("!location.hash.includes('/block.bend/3?')")
    assert "Make an index" in page.inner_text("main")


def test_a_unit_that_is_not_there_is_said_so(page: Any, workshop: str) -> None:
    page.goto(f"{workshop}#/unit/guest.py-build/block.bend/999?picture=sample-chelsea&size=64")
    page.wait_for_selector("[role=alert]")
    assert "999" in page.inner_text("[role=alert]")


PAGES = {
    "unit": "#/unit/guest.py-build/act/0?picture=sample-chelsea&size=64",
    "keeps": "#/keeps",
    "dream": "#/dream",
    "paint": "#/paint",
    "learn": "#/learn",
    "runs": "#/runs",
    "new": "#/runs?new=excite",
}


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in web/")
@pytest.mark.parametrize(
    "name", [name if name == "paint" else pytest.param(name, marks=pytest.mark.slow) for name in PAGES]
)
def test_every_page_fits_and_axe_finds_nothing_serious(page: Any, workshop: str, name: str) -> None:
    page.goto(workshop + PAGES[name])
    page.wait_for_selector("h1")
    page.wait_for_load_state("networkidle" if name != "unit" else "load")
    for summary in page.locator("form > details > summary").all():
        summary.click()
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run()")
        bad = [
            (rule["id"], [node["html"][:200] for node in rule["nodes"]])
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert not bad, bad
