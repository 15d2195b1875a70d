"""Memory as the system tells it: a process's own peak, and the limits of its control groups."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from innervision import memory

CPU = torch.device("cpu")

USUAL = {memory._TRIM_THRESHOLD: memory._USUALLY_KEPT, memory._MMAP_THRESHOLD: memory._USUALLY_HELD}
KEEPING = {memory._TRIM_THRESHOLD: memory._MOST_KEPT, memory._MMAP_THRESHOLD: memory._MOST_HELD}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """What the heap was told last, of each option."""
    latest: dict[int, int] = {}
    heap = memory._Heap()  # a descent that another test holds still keeps its own
    monkeypatch.setattr(heap, "tell", latest.__setitem__)
    monkeypatch.setattr(memory, "_heap", heap)
    return latest


def test_the_heap_is_told_its_usual_ways_again(told: dict[int, int]) -> None:
    with memory.kept():
        assert told == KEEPING
        with memory.apart():
            assert told == KEEPING | {memory._MMAP_THRESHOLD: memory._LEAST_HELD}
        assert told == KEEPING
    assert told == USUAL
    with memory.apart():
        assert told[memory._MMAP_THRESHOLD] == memory._LEAST_HELD
    assert told == USUAL
    for keeping in (memory.kept, memory.apart):
        with pytest.raises(KeyboardInterrupt), keeping():
            raise KeyboardInterrupt
        assert told == USUAL


@pytest.mark.parametrize("keeping", [memory.kept, memory.apart])
def test_of_several_at_once_the_first_may_end_first(told: dict[int, int], keeping: Any) -> None:
    """As two descents that take turns do, or two threads."""
    one, two = keeping(), keeping()
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert keeping is memory.apart or told == KEEPING
    two.__exit__(None, None, None)
    assert told[memory._MMAP_THRESHOLD] == USUAL[memory._MMAP_THRESHOLD]
    assert keeping is memory.apart or told == USUAL


def test_the_limits_of_control_groups(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (tmp_path / "memory/inner/mine").mkdir(parents=True)
    (tmp_path / "memory/inner/memory.limit_in_bytes").write_text("3000\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory.max").write_text("max\n")
    groups.write_text("5:devices:/\n4:cpu,memory:/inner/mine\n0::/\n")
    assert sorted(memory._limits(groups, tmp_path)) == [3000, 9223372036854771712]
    (tmp_path / "memory.max").write_text("2000\n")
    groups.write_text("0::/a/container/never/mounted\n")
    assert list(memory._limits(groups, tmp_path)) == [2000]
    assert list(memory._limits(tmp_path / "none", tmp_path)) == []


def _fill_64_mib() -> None:
    """Take 64 MiB and give them back: pages of their own, which no freed memory can lend."""
    with mmap.mmap(-1, 2**26) as block:
        for _ in range(64):  # the whole at once would be there twice
            block.write(b"1" * 2**20)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be counted afresh")
def test_the_peak_counts_afresh() -> None:
    _fill_64_mib()
    high = memory.peak(CPU, afresh=True)
    before, room = memory.peak(CPU), memory.available(CPU)
    assert high is not None and before is not None and room is not None
    assert high - before > 2**26 * 0.9
    _fill_64_mib()
    after = memory.peak(CPU)
    assert after is not None
    assert after - before > 2**26 * 0.9
    assert room > after
