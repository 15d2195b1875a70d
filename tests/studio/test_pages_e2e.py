"""The pages of work in a real Chromium: unit, layer keeps, dream, paint, learn, runs; whole paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

expect = pytest.importorskip("playwright.sync_api").expect

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
LATE = 120_000  # ms that a job may take


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
    )


def pixels(page: Any, selector: str) -> str:
    return page.evaluate("(selector) => document.querySelector(selector).toDataURL()", selector)


def dream(page: Any, address: str, *, steps: str = "2", layers: str = "act") -> None:
    page.goto(f"{address}#/dream")
    page.wait_for_selector("form")
    fill(page, Layers=layers, Longest_side="48", Octaves="1", Steps=steps)


def test_a_newcomer_dreams_and_goes_on_from_there(page: Any, address: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    Image.linear_gradient("L").resize((60, 40)).convert("RGB").save(mine)
    dream(page, address)
    page.set_input_files("form input[type=file]", mine)
    page.wait_for_selector("form [aria-label='mine.png'][aria-pressed=true]")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar")
    page.reload()  # closing the page stops nothing
    expect(page.get_by_label("Longest side")).to_have_value("48")  # and the form is the run's
    ended(page)
    drawn(page, ".pair img")
    page.get_by_label("Slide between before and after").press("ArrowRight")
    with page.expect_download() as got:
        page.get_by_role("link", name="Download").click()
    with Image.open(got.value.path()) as picture:
        assert picture.size == (48, 32)
    expect(page.locator(".curves path").first).to_be_attached()
    page.get_by_role("button", name="Go on from here").click()
    page.wait_for_selector("form .chosen img[alt^='dream ']")
    expect(page.get_by_label("Longest side")).to_have_value("48")  # the run's settings are kept
    page.goto(f"{address}#/runs")
    page.wait_for_selector("main ul a:has-text('Dream')")


@pytest.mark.slow
def test_what_a_command_refuses_is_told_in_its_words(page: Any, address: str) -> None:
    dream(page, address, layers="nowhere")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.failed, .toast.bad", timeout=LATE)
    expect(page.locator("#app")).to_contain_text("nowhere")


def test_a_field_says_what_is_wrong_with_it(page: Any, address: str) -> None:
    dream(page, address, steps="many")
    page.get_by_role("button", name="Dream", exact=True).click()
    expect(page.get_by_label("Steps", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".bar")).to_have_count(0)


@pytest.mark.slow
def test_jobs_queue_and_are_stopped(page: Any, address: str) -> None:
    dream(page, address, steps="100000")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.running", timeout=LATE)
    page.wait_for_function("location.hash.includes('run=')")
    first = page.url
    fill(page, Steps="1")
    page.get_by_role("button", name="Dream", exact=True).click()
    page.wait_for_selector(".bar .state.queued")
    expect(page).not_to_have_url(first)
    page.go_back()
    page.wait_for_selector(".bar .state.running")
    page.wait_for_selector(".bar .numbers", timeout=LATE)  # it is at a step
    page.get_by_role("button", name="Stop", exact=True).click()
    ended(page, "stopped")
    page.go_forward()
    ended(page)


@pytest.mark.slow
def test_paint_is_stopped_resumed_and_finished(page: Any, address: str) -> None:
    page.goto(f"{address}#/paint")
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
    expect(page.locator(".bar")).to_contain_text("400 of 400")


@pytest.mark.slow
def test_layers_keep_less_and_less(page: Any, address: str) -> None:
    page.goto(f"{address}#/keeps")
    page.wait_for_selector("form")
    fill(page, Layers="act,block.bend", Longest_side="32", Steps="10")
    page.get_by_role("button", name="Invert the layers").click()
    ended(page)
    drawn(page, "main [role=toolbar] button img")
    expect(page.locator("main [role=toolbar] button")).to_have_count(2)
    page.locator("main [role=toolbar] button").first.click()
    expect(page.locator(".stage .foot strong")).to_contain_text("act")
    expect(page.locator(".curves path")).to_have_count(2)


@pytest.mark.slow
def test_a_network_learns_and_is_asked(page: Any, address: str) -> None:
    page.goto(f"{address}#/learn")
    page.wait_for_selector("form")
    page.get_by_label("Recipe", exact=True).select_option("lenet5-modern")
    page.get_by_label("Pictures", exact=True).select_option("shapes")
    fill(page, Epochs="4", Batch="16", Held_out="0.25")
    expect(page.get_by_label("Snapshot each … epochs")).to_have_value("1")
    page.get_by_role("button", name="Train", exact=True).click()
    ended(page)
    page.wait_for_selector("table tbody td")
    expect(page.locator("table").first).to_contain_text("disc")
    expect(page.locator(".curves path").nth(2)).to_be_attached()  # three at least
    page.wait_for_selector("h2:has-text('mistakes')")
    page.locator("section[aria-label='Ask this network'] .thumb").first.click()
    page.wait_for_selector("section[aria-label='Ask this network'] ol .numbers")
    for name in ("disc", "square"):
        expect(page.locator("section[aria-label='Ask this network'] ol")).to_contain_text(name)
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
    page.goto(f"{address}#/unit/{net}/{names[1]}/0?picture=sample-chelsea")
    page.wait_for_selector("h2:has-text('Over training')")
    page.get_by_label("Epoch", exact=True).fill("1")
    page.wait_for_selector(".figures figcaption p:has-text('Epoch 1')")
    drawn(page, "section .figures img")


@pytest.mark.slow
def test_an_index_shows_what_excites_a_unit_most(page: Any, address: str) -> None:
    page.goto(f"{address}#/unit/guest.py-build/act/1?picture=sample-chelsea&size=64")
    page.get_by_role("link", name="Make an index").click()
    page.wait_for_selector("h1:has-text('units')")
    page.locator("form select").first.select_option("shapes")
    page.get_by_role("button", name="Start units").click()
    ended(page)
    page.goto(f"{address}#/unit/guest.py-build/act/1?picture=sample-chelsea&size=64")
    page.wait_for_selector("h2:has-text('Their deconvolutions')")
    drawn(page, ".top img")


@pytest.mark.slow
def test_a_units_page_is_a_link(page: Any, address: str) -> None:
    page.goto(f"{address}#/unit/guest.py-build/block.bend/2?picture=sample-chelsea&size=64")
    drawn(page, ".figures img")
    page.wait_for_selector("main a.neighbour")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("location.hash.includes('/block.bend/3?')")
    page.wait_for_selector("h1:has-text('Channel 3')")
    expect(page.locator(".head a")).to_have_text("guest.py:build")  # by its name, not by its id
    page.wait_for_selector(".figures a:has-text('Download')", timeout=LATE)  # what excites it is made
    page.locator("main a.neighbour").first.click()
    page.wait_for_function("!location.hash.includes('/block.bend/3?')")
    expect(page.locator("main")).to_contain_text("Make an index")


def test_a_unit_that_is_not_there_is_said_so(page: Any, address: str) -> None:
    page.goto(f"{address}#/unit/guest.py-build/block.bend/999?picture=sample-chelsea&size=64")
    page.wait_for_selector("[role=alert]")
    expect(page.locator("[role=alert]")).to_contain_text("999")


PAGES = {
    "unit": ("#/unit/guest.py-build/act/0?picture=sample-chelsea&size=64", "a.neighbour"),
    "keeps": ("#/keeps", "form"),
    "dream": ("#/dream", "form"),
    "paint": ("#/paint", "form .styles li"),
    "learn": ("#/learn", "form"),
    "runs": ("#/runs", "main"),
    "new": ("#/runs?new=excite", "form"),
}


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in web/")
@pytest.mark.parametrize(
    "name", [name if name == "paint" else pytest.param(name, marks=pytest.mark.slow) for name in PAGES]
)
def test_every_page_fits_and_axe_finds_nothing_serious(page: Any, address: str, name: str) -> None:
    where, whole = PAGES[name]
    page.goto(address + where)
    page.wait_for_selector("h1")
    page.wait_for_selector(whole)
    page.wait_for_load_state("networkidle" if name != "unit" else "load")
    for summary in page.locator("form > details > summary").all():
        summary.click()
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("(width) => document.documentElement.scrollWidth <= width", arg=width)
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run()")
        bad = [
            (rule["id"], [node["html"][:200] for node in rule["nodes"]])
            for rule in found["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        assert not bad, bad
