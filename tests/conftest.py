"""What all tests share: while they run, the annotations of what computes are checked, shapes and all."""

from __future__ import annotations

import signal

import jaxtyping
import pytest
from beartype import BeartypeConf
from beartype.claw import beartype_packages

from innervision import shapes

vars(shapes)["Float"] = jaxtyping.Float  # before any signature is read that has it

# A shell's background jobs are deaf to Ctrl-C, and so would be all that the tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

COMPUTES = ("colour", "core", "see", "sheets")
LONG = ("innervision.core.descend",)  # a checked generator would hold on to the frame it has yielded

# An int stands for a float (PEP 484), as static checkers have it.
checks = BeartypeConf(is_pep484_tower=True, claw_skip_package_names=LONG)
beartype_packages([f"innervision.{name}" for name in COMPUTES], conf=checks)


@pytest.fixture
def unshaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave shapes unchecked, as a caller finds them: what a function says of a wrong one is tested."""
    monkeypatch.setattr(jaxtyping.AbstractArray, "_skip_instancecheck", True, raising=False)
