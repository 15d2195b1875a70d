"""The events of a run: a line for each frame and snapshot; and both as pictures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from innervision import sheets
from innervision.core import Frame
from innervision.files import atomic


def read_events(folder: Path | str) -> list[dict[str, Any]]:
    """Return a run's events; what is none, as a last line cut by a crash, is passed over."""
    path = Path(folder) / "events.jsonl"
    events: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event and isinstance(event.get("count"), int):
                    events.append(event)
    return events


def last_lines(path: Path, most: int) -> list[str]:
    """Return the lines in a file's last `most` bytes, the first of them perhaps cut; none without a file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - most))
            return file.read(most).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def keep_events(folder: Path | str, count: int) -> None:
    """Forget a run's events after this count, and a last line that a crash has cut."""
    kept = [event for event in read_events(folder) if event["count"] <= count]
    with atomic(Path(folder) / "events.jsonl") as draft:
        draft.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")


def frame_event(frame: Frame, seconds: float) -> dict[str, Any]:
    """Return a frame as an event."""
    return {
        "event": "frame",
        "stage": frame.stage,
        "step": frame.step,
        "count": frame.count,
        "steps": frame.steps,
        "size": list(frame.image.shape[-2:]),
        "total": frame.total,
        "values": dict(frame.values),
        "seconds": round(seconds, 3),
    }


def snapshot_event(frame: Frame, changes: Iterable[tuple[int, float]], file: str = "") -> dict[str, Any]:
    """Return a snapshot as an event; `change` is the percentage since the one before, if they compare."""
    change = dict(changes).get(frame.count)
    return {"event": "snapshot", "count": frame.count, "file": file, "change": change}


def draw_curve(events: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw every term over the steps, on a logarithmic scale; marked is where the picture's size changes."""
    frames = [event for event in events if event["event"] == "frame"]
    if not frames:
        return
    names = dict.fromkeys(name for event in frames for name in event["values"])
    lines = {name: [event["values"].get(name, 0.0) for event in frames] for name in names}
    counts = [event["count"] for event in frames]
    totals = [event["total"] for event in frames]
    with atomic(path) as draft:
        sheets.curve(counts, {"total": totals, **lines}, marks=sizes(frames)).save(draft)


def sizes(frames: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Return where a painting's size changes, and the sizes: count -> "512x384"; nothing if it never does.

    Terms of another size are other numbers: a total that rises there is no step back.
    """
    found: dict[int, str] = {}
    last = ""
    for event in frames:
        h, w = event.get("size") or (0, 0)
        if f"{w}x{h}" != last:
            last = found[event["count"]] = f"{w}x{h}"
    return found if len(found) > 1 else {}


def draw_sheet(events: Iterable[Mapping[str, Any]], folder: Path, *, most: int = 12) -> None:
    """Set the snapshots side by side, each with its step and how much had changed; at most so many."""
    found = {event["count"]: event for event in events if event["event"] == "snapshot"}
    shown = [event for event in found.values() if (folder / "snapshots" / event["file"]).is_file()]
    if not shown:
        return
    if len(shown) > most:  # the first, the last, and what lies evenly between
        shown = [shown[round(n * (len(shown) - 1) / (most - 1))] for n in range(most)]
    labels = [snapshot_label(event) for event in shown]
    with contextlib.ExitStack() as files, atomic(folder / "sheet.png") as draft:
        paths = [folder / "snapshots" / event["file"] for event in shown]
        pictures = [files.enter_context(Image.open(path)) for path in paths]
        sheets.sheet(pictures, labels=labels, columns=4, smooth=True).save(draft)


def snapshot_label(event: Mapping[str, Any]) -> str:
    """Say a snapshot's step and, below, how much had changed."""
    change = event["change"]
    return f"step {event['count']}" + ("" if change is None else f"\n{change:.1f} % changed")
