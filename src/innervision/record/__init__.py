"""Runs on disk: what was run, on what, with what result, and all that is needed to go on with it.

    run.json          the RunCard
    events.jsonl      one line a frame, one a snapshot
    snapshots/        NNNN.png, by count of steps
    sheet.png         the snapshots side by side
    curve.png         every term over the steps
    checkpoint.pt     where a stopped run goes on, bit for bit

Every file is written whole or not at all, but for the events, whose last line may be cut by a crash.
"""

from innervision.record.card import RUNS, Input, Result, RunCard, list_runs, read_card
from innervision.record.events import (
    draw_curve,
    draw_sheet,
    frame_event,
    keep_events,
    last_lines,
    read_events,
    snapshot_event,
    snapshot_label,
)
from innervision.record.run import STDIN, Run, Work, in_use, new_folder, open_run, resume_run, take

__all__ = [
    "RUNS",
    "STDIN",
    "Input",
    "Result",
    "Run",
    "RunCard",
    "Work",
    "draw_curve",
    "draw_sheet",
    "frame_event",
    "in_use",
    "keep_events",
    "last_lines",
    "list_runs",
    "new_folder",
    "open_run",
    "read_card",
    "read_events",
    "resume_run",
    "snapshot_event",
    "snapshot_label",
    "take",
]
