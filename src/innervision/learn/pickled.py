"""CIFAR's python version, read without running what it pickles.

A pickle names functions that the reader is to call. Here every name that a batch of CIFAR may contain stands
for an inert note of what it was called with, and any other name is an error: nothing is ever imported for it.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innervision.errors import Invalid


class _Noted:
    """Stands for whatever the pickle would make: keeps what it is made of, and what its state is set to."""

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


_HARMLESS = {(f"{package}.multiarray", "_reconstruct") for package in ("numpy.core", "numpy._core")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) in _HARMLESS:
            return _Noted
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no batch of CIFAR does")


def load(data: bytes, name: str) -> dict[bytes, Any]:
    """Return a batch's table; arrays in it are notes. Raises Invalid for a damaged or a strange pickle."""
    try:
        table = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        if not isinstance(table, dict):
            raise TypeError(f"it holds no table but {type(table).__name__}")
    except Exception as error:  # a damaged pickle makes the reader raise almost anything
        raise Invalid(f"'{name}' is no batch of CIFAR's python version, or damaged: {error}") from error
    return {key.encode() if isinstance(key, str) else bytes(key): value for key, value in table.items()}


def arrays(data: bytes, name: str, labels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a pickled batch's pictures (n 3 32 32) and labels; `labels` is 1 for CIFAR-10, 2 for -100."""
    table = load(data, name)
    key = b"labels" if labels == 1 else b"fine_labels"
    if b"data" not in table or key not in table:
        raise Invalid(f"'{name}' has no data and {key.decode()}: {', '.join(map(repr, table)) or 'nothing'}")
    found = table[key]
    if not isinstance(found, list) or not all(isinstance(label, int) for label in found):
        raise Invalid(f"'{name}': its {key.decode()} are no list of whole numbers")
    pixels = _pixels(table[b"data"], name)
    if len(pixels) != len(found):
        raise Invalid(f"'{name}' has {len(pixels)} pictures and {len(found)} labels: it is damaged")
    return pixels, np.array(found, np.int64)


def _pixels(noted: Any, name: str) -> NDArray[np.uint8]:
    """Make the array that was pickled: its state is (version, shape, dtype, by columns, bytes)."""
    try:
        _, shape, kind, columns, body = noted.state
        if isinstance(body, _Noted):  # Python 3 pickles bytes in protocol 2 as text to be encoded
            body = body.given[0].encode(
                body.given[1] if isinstance(body.given[1], str) else body.given[1].decode()
            )
        count, width = shape
        right = (
            kind.given[0] in (b"u1", "u1") and not columns and width == 3072 and len(body) == count * width
        )
    except (AttributeError, TypeError, ValueError, IndexError, UnicodeError):
        right, body = False, b""
    if not right:
        raise Invalid(f"'{name}': its data is no table of bytes with 3,072 a picture")
    return np.frombuffer(body, np.uint8).reshape(-1, 3, 32, 32)
