"""How soon the studio answers, measured in a real headless Chromium; prints one table.

    python benchmarks/studio.py [--net vgg19] [--pictures 500] [--repeats 20]

It starts `innervision studio` on a free port, opens the Look page, and measures what a person waits for:

- first page: from the navigation's start until the layers can be clicked, without a cache;
- picture: from the click on a picture that the server has not seen yet until a frame is painted in which
  every layer in sight (the 16 after VGG19's convolutions) and the chosen one's sheet show its maps;
- layer: from the click on a layer until a frame is painted in which its sheet is drawn;
- camera: answers of /api/live in a second, while Chromium's fake device plays;
- requests: sprite requests a layer, the most for any one picture (small sprites come with the look: none);
- memory: the page's heap after collection, and the server's resident memory, over many pictures, no two
  alike, from a fifth of them to the last.

Times are median and worst of the repeats. Run it on an idle machine. 500 pictures take some three minutes;
with --pictures 0 memory is left out.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from standings import machine

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "src/innervision/samples"
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
FIRST = 1000  # number of the first picture of those over which memory is watched
SCREEN = {"width": 1920, "height": 1080}  # the graph's 16 layers lie side by side on it

# In the page: from the next click's own time stamp until `settled` holds and a frame has been painted.
WATCH = """() => {
    const settled = SETTLED;
    window.waited = new Promise((resolve, reject) => {
        setTimeout(() => reject(new Error("nothing has settled within 30 s")), 30000);
        addEventListener("click", ({ timeStamp }) => {
            const look = () => requestAnimationFrame(() => {
                if (settled()) setTimeout(() => resolve(performance.now() - timeStamp));
                else look();
            });
            look();
        }, { capture: true, once: true });
    });
}"""
MAPS = "[...document.querySelectorAll('[role=tab] canvas, .sheet canvas')].map((c) => c.dataset.key ?? '')"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--net", default="vgg19")
    parser.add_argument(
        "--pictures", type=int, default=500, help="to look at while memory is watched; 0: none"
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    asked = parser.parse_args()
    load = os.getloadavg()[0]  # above about 0.2 the machine has other things to do
    with served(asked.net) as (address, pid), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=FLAGS)
        opened(browser, address).context.close()  # the network is read from disk once, before all else
        rows = [
            first_page(browser, address, asked.repeats),
            *pictures(browser, address, asked.repeats),
            camera(browser, address),
            *(memory(browser, address, asked.pictures, pid) if asked.pictures else ()),
        ]
        print(f"{time.strftime('%Y-%m-%d %H:%M')}; {machine()}; load {load:.1f} before;")
        print(f"Chromium {browser.version}; {asked.net}; n = {asked.repeats}.\n")
        browser.close()
    print("| what | measured | bar | holds |\n|---|---|---|---|")
    for what, measured, bar, holds in rows:
        print(f"| {what} | {measured} | {bar} | {'yes' if holds else '**no**'} |")


Row = tuple[str, str, str, bool]


@contextmanager
def served(net: str) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "innervision", "studio", "--port", "0", "--no-browser", "--net", net]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as runs:  # the pictures that are sent lie there
        command += ["--runs", runs]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        try:
            found = re.search(r"http://\S+", process.stdout.readline())
            if found is None:
                sys.exit("the studio did not start")
            yield found.group(), process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def opened(browser: Browser, address: str, side: int | None = None) -> Page:
    page = browser.new_context(viewport=SCREEN).new_page()  # type: ignore[arg-type]
    page.goto(f"{address}#/look" + (f"?size={side}" if side else ""))
    page.wait_for_selector(".sheet canvas[data-layer]", timeout=60_000)
    page.wait_for_load_state("networkidle")
    return page


def told(what: str, times: list[float], bar: float) -> Row:
    middle, worst = statistics.median(times), max(times)
    return what, f"{middle:.0f} ms (worst {worst:.0f})", f"{bar:.0f} ms", middle <= bar


def first_page(browser: Browser, address: str, repeats: int) -> Row:
    times = []
    for _ in range(repeats):
        page = browser.new_context(viewport=SCREEN).new_page()  # type: ignore[arg-type]
        page.add_init_script(
            """window.ready = new Promise((resolve) => {
                const look = () => requestAnimationFrame(() => {
                    const there = document.querySelector("[role=tab]") && document.querySelector(".thumb");
                    if (there) setTimeout(() => resolve(performance.now()));
                    else look();
                });
                look();
            });"""
        )
        page.goto(address)
        times.append(page.evaluate("window.ready"))
        page.context.close()
    return told("first page, until it can be used", times, 1000)


def upload(address: str, number: int) -> str:
    """Send a crop that the studio has not seen, another for each number below 2400; return its name."""
    files = sorted(SAMPLES.glob("*.[pj][np]g"))
    with Image.open(files[number % len(files)]) as image:
        left, top = number % 60, number // 60 % 40
        crop = image.convert("RGB").crop((left, top, image.width - 60 + left, image.height - 40 + top))
    crop.thumbnail((640, 640))
    held = io.BytesIO()
    crop.save(held, "JPEG", quality=90)
    name = f"bench {number}.jpg"
    headers = {"X-Innervision": "1", "X-Name": urllib.parse.quote(name)}
    request = urllib.request.Request(f"{address}api/pictures", held.getvalue(), headers, method="POST")
    urllib.request.urlopen(request).read()
    return name


def click(page: Page, selector: str, settled: str) -> float:
    page.evaluate(WATCH.replace("SETTLED", settled))
    page.locator(selector).click()
    return page.evaluate("window.waited")


def picked(page: Page, name: str) -> float:
    page.evaluate(f"() => {{ window.old = new Set({MAPS}); }}")
    every = f"() => {{ const k = {MAPS}; return k[0] && !window.old.has(k[0]) && new Set(k).size === 1; }}"
    return click(page, f"button.thumb[title='{name}']", every)


def pictures(browser: Browser, address: str, repeats: int) -> Iterator[Row]:
    most: collections.Counter[str] = collections.Counter()
    changes: list[float] = []
    number = 0
    for side, bar in ((32, 150), (224, 1000)):
        names = [upload(address, number + i) for i in range(repeats + 2)]
        number += len(names)
        page = opened(browser, address, side)
        asked: list[str] = []
        page.on("request", lambda r, asked=asked: asked.append(r.url) if "cell=" in r.url else None)
        times = []
        for i, name in enumerate(names):
            asked.clear()
            took = picked(page, name)
            page.wait_for_load_state("networkidle")
            if i >= 2:  # the first two warm the server
                times.append(took)
            most |= collections.Counter(asked)
        shown = page.locator("[role=tab]").count()
        yield told(f"picture → all {shown} layers, {side} px", times, bar)
        layers = page.evaluate("[...document.querySelectorAll('[role=tab]')].map((tab) => tab.dataset.layer)")
        for _, layer in zip(range(repeats), cycle(layers), strict=False):
            if page.get_attribute("[aria-selected=true]", "data-layer") == layer:
                continue
            drawn = f"() => document.querySelector('.sheet canvas').dataset.layer === {layer!r}"
            changes.append(click(page, f"[role=tab][data-layer='{layer}']", drawn))
        page.context.close()
    yield told("another layer, already looked at", changes, 100)
    once = max(most.values(), default=0)
    yield "sprite requests a layer and picture", f"{once} at most", "1", once <= 1


def camera(browser: Browser, address: str, seconds: float = 5) -> Row:
    page = opened(browser, address)
    answers: list[float] = []

    def hear(response: Any) -> None:
        if "/api/live" in response.url and response.ok:
            answers.append(time.perf_counter())

    page.on("response", hear)
    page.keyboard.press("c")
    page.wait_for_selector(".sheet canvas[data-key=live]")
    page.wait_for_timeout(1000)
    start = time.perf_counter()
    page.wait_for_timeout(1000 * seconds)
    rate = sum(start <= at < start + seconds for at in answers) / seconds
    page.context.close()
    return "camera, 64 px", f"{rate:.0f} frames/s", "10 frames/s", rate >= 10


def memory(browser: Browser, address: str, pictures: int, pid: int) -> Iterator[Row]:
    names = [upload(address, FIRST + i) for i in range(pictures)]
    page = opened(browser, address, 32)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def marked() -> tuple[float, float]:
        session.send("HeapProfiler.collectGarbage")
        metrics = session.send("Performance.getMetrics")["metrics"]
        heap = next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize")
        return heap / 2**20, resident(pid)

    marks: list[tuple[float, float]] = []
    for i, name in enumerate(names):
        if i == pictures // 5:
            marks.append(marked())
        picked(page, name)
    marks.append(marked())
    page.context.close()
    for what, before, after in zip(("page's heap", "server's memory"), *marks, strict=True):
        change = after - before
        yield (
            f"{what} over {pictures} pictures",
            f"{before:.0f} → {after:.0f} MiB",
            "flat (within 10 %, or 8 MiB)",
            change <= max(8, before / 10),
        )


def resident(pid: int) -> float:
    """A process's resident memory in MiB, with its children's, from /proc; 0 where there is none."""
    total = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            told = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has ended
        if pid in (int(told["Pid"]), int(told["PPid"])):
            total += int(told.get("VmRSS", "0 kB").split()[0]) / 1024
    return total


if __name__ == "__main__":
    main()
