"""Films: pictures in a row, written as an mp4 by the optional extra `video`."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch import Tensor

from innervision.errors import Invalid
from innervision.files import atomic
from innervision.images import to_bytes

_QUALITY = "18"  # x264's constant rate factor: what is lost is not seen


class Movie:
    """An mp4 (H.264, 4:2:0) that grows by a picture at a time; it is written when the block ends.

    Every picture has the first one's size; a side of odd length loses a pixel, which 4:2:0 asks for. What
    was added is kept when the block is left by Ctrl-C. Raises Invalid, before anything is made, where PyAV
    is not installed or the name does not end in .mp4.
    """

    def __init__(self, path: Path | str, *, fps: int = 12) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise Invalid(f"a film is written as .mp4, not {self.path.name!r}")
        if fps < 1:
            raise Invalid(f"{fps} pictures a second: give at least 1")
        self._fps = fps
        self._av = _pyav()
        self._file: Any = None
        self._draft: Any = None
        self._stream: Any = None

    def __enter__(self) -> Movie:
        self._file = atomic(self.path)
        self._draft = self._av.open(str(self._file.__enter__()), "w", format="mp4")
        return self

    def add(self, image: Tensor) -> None:
        """Add a picture (1, 3, h, w), sRGB 0..1."""
        pixels = to_bytes(image)
        h, w = (side - side % 2 for side in pixels.shape[:2])
        stream = self._stream
        if stream is None:
            if min(h, w) < 2:
                raise Invalid(
                    f"a film's pictures have at least 2 x 2 px, not {pixels.shape[1]} x {pixels.shape[0]}"
                )
            stream = self._stream = self._begin(h, w)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:h, :w]), format="rgb24")
        for packet in stream.encode(frame):
            self._draft.mux(packet)

    def _begin(self, height: int, width: int) -> Any:
        stream = self._draft.add_stream("libx264", rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": _QUALITY}
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream = self._stream
        kept = stream is not None and (kind is None or issubclass(kind, KeyboardInterrupt))
        if stream is not None:
            for packet in stream.encode() if kept else ():
                self._draft.mux(packet)
            self._draft.close()
        if kept:
            self._file.__exit__(None, None, None)
            return
        failed = error or Invalid("a film needs at least one picture")
        self._file.__exit__(type(failed), failed, trace)


def _pyav() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError:
        raise Invalid(
            "an mp4 needs PyAV: pip install 'innervision[video]'; or keep the film's pictures in a folder"
        ) from None
