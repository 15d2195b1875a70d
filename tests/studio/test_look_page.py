"""The Look page in a real Chromium: a newcomer's path, keys, camera, two sides, small screens, axe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

expect = pytest.importorskip("playwright.sync_api").expect

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web/node_modules/axe-core/axe.min.js"
SHEET = ".sheet canvas"
CHOSEN = "[role=tab][aria-selected=true]"


def opened(page: Any, address: str, rest: str = "#/look?picture=sample-chelsea&size=64") -> Any:
    page.goto(address + rest)
    page.wait_for_selector(".sheet canvas[data-layer]")
    return page


def drop(page: Any, file: Path) -> None:
    """Let go of a file over the page, as the mouse does."""
    carried = page.evaluate_handle(
        """([bytes, name]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
            return carried;
        }""",
        [list(file.read_bytes()), file.name],
    )
    page.dispatch_event(".look", "drop", {"dataTransfer": carried})


def ink(page: Any, more: float = 0.0) -> float:
    """Wait until more than that share of the sheet's pixels is drawn and not dark; return the share."""
    return page.wait_for_function(
        """([selector, more]) => {
            const canvas = document.querySelector(selector);
            if (!canvas?.dataset.layer) return 0;
            const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            let lit = 0;
            for (let i = 0; i < data.length; i += 4) lit += data[i] > 60 && data[i + 3] > 0;
            const share = lit / (data.length / 4);
            return share > more ? share : 0;
        }""",
        arg=[SHEET, more],
        polling=50,
    ).json_value()


def test_a_newcomer_drops_a_picture_and_follows_it_to_a_unit(page: Any, address: str, tmp_path: Path) -> None:
    mine = tmp_path / "小图.png"
    Image.new("RGB", (48, 32), (200, 60, 30)).save(mine)
    opened(page, address)
    before = page.get_attribute(SHEET, "data-key")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "cell=" in request.url else None)
    drop(page, mine)
    page.wait_for_selector("button[aria-label='小图.png'][aria-pressed=true]")
    expect(page.locator(SHEET)).not_to_have_attribute("data-key", before)
    page.click("[role=tab][data-layer='block.right']")
    page.wait_for_selector(f"{SHEET}[data-layer='block.right']")
    assert ink(page, 0.02)
    assert len(asked) == len(set(asked)), "a layer was asked for twice"

    page.locator(".sheet .list").hover(position={"x": 20, "y": 20})
    expect(page.locator(".read")).to_contain_text("channel")
    expect(page.locator(".picture .box")).to_have_count(1)
    page.locator(".sheet .list").click(position={"x": 20, "y": 20})
    page.wait_for_selector(".detail canvas[data-exact=true]")
    expect(page.locator(".detail a").first).to_have_attribute("href", re.compile("^#/unit/.*/block.right/"))
    expect(page).to_have_url(re.compile("layer=block.right"))  # the address tells where one is


def test_branches_are_drawn_as_the_module_has_them(page: Any, address: str) -> None:
    opened(page, address)
    expect(page.locator("[role=tab][data-layer='fc']")).to_be_attached()
    names = page.evaluate("[...document.querySelectorAll('[role=tab]')].map((tab) => tab.dataset.layer)")
    assert {"block.left", "block.right", "fc"} <= set(names)
    tops = {
        name: page.locator(f"[role=tab][data-layer='{name}']").bounding_box()["y"]
        for name in ("block.left", "block.right")
    }
    assert tops["block.left"] != tops["block.right"]


def test_keys_move_and_change_what_is_shown(page: Any, address: str) -> None:
    opened(page, address)
    chosen = page.locator(CHOSEN)
    first = chosen.get_attribute("data-layer")
    page.keyboard.press("]")
    expect(chosen).not_to_have_attribute("data-layer", first)
    page.keyboard.press("[")
    expect(chosen).to_have_attribute("data-layer", first)
    expect(page.locator(SHEET)).to_have_attribute("data-layer", first)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("[role=option]")).to_have_attribute("aria-posinset", "2")
    before = ink(page)
    for _ in range(8):
        page.keyboard.press("b")
    assert ink(page, before) > before
    page.keyboard.press("0")
    for _ in range(2):  # the keys that one presses next are heard, however soon they come
        page.keyboard.press("?")
        expect(page.locator("dialog[open]")).to_have_count(1)
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        expect(page.locator("dialog[open]")).to_have_count(1)
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
        expect(page.locator("[role=option]")).to_have_count(0)
        page.keyboard.press("ArrowRight")
        expect(page.locator("[role=option]")).to_have_count(1)


def test_a_frozen_picture_stays_beside_the_next(page: Any, address: str) -> None:
    opened(page, address)
    page.keyboard.press("f")
    expect(page.locator("section.pane")).to_have_count(2)
    page.click(".shelf .thumb[aria-pressed=false] >> nth=0")
    page.wait_for_function(
        """() => {
            const [a, b] = [...document.querySelectorAll('.sheet canvas')].map((c) => c.dataset.key);
            return a && b && a !== b;
        }"""
    )
    page.click("[role=tab][data-layer='act'] >> nth=1")
    expect(page.locator("[role=tab][data-layer='act'][aria-selected=true]")).to_have_count(2)


def test_the_camera_is_looked_at_live(page: Any, address: str) -> None:
    opened(page, address)
    page.keyboard.press("c")
    page.wait_for_selector(f"{SHEET}[data-key=live]")
    with page.expect_response(lambda response: "/api/live" in response.url) as found:
        pass
    assert found.value.ok
    page.keyboard.press("f")  # the frame is kept as a picture, and looked at in full
    page.wait_for_selector(f"{SHEET}[data-key]:not([data-key=live])")
    expect(page.locator(".shelf .thumb[aria-pressed=true]")).to_have_attribute("title", re.compile("camera"))


def test_it_speaks_chinese(page: Any, address: str) -> None:
    opened(page, address)
    page.click("header button")
    expect(page.locator("main")).to_contain_text("预测")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_a_refusal_is_told_in_the_servers_words(page: Any, address: str, tmp_path: Path) -> None:
    opened(page, address)
    bad = tmp_path / "note.png"
    bad.write_text("no picture")
    with page.expect_response(lambda response: response.url.endswith("/api/pictures")) as found:
        page.set_input_files("input[type=file]", bad)
    assert found.value.status in (400, 415, 422)
    expect(page.locator(".toast.bad")).to_contain_text("what was sent")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_lies_beyond_the_screens_edge(page: Any, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    opened(page, address)
    page.wait_for_function("(width) => document.documentElement.scrollWidth <= width", arg=width)


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm ci in web/")
@pytest.mark.parametrize("width", [360, 1440])
def test_axe_finds_nothing_serious(page: Any, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, address)
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".detail canvas[data-exact=true]")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    bad = [
        (rule["id"], [node["html"] for node in rule["nodes"]])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    assert not bad, bad
