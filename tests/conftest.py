"""What all tests share: while they run, the annotations of what computes are checked."""

from __future__ import annotations

from beartype import BeartypeConf
from beartype.claw import beartype_packages

COMPUTES = ("colour", "core", "see", "sheets")
LONG = ("innervision.core.descend",)  # a checked generator would hold on to the frame it has yielded

# An int stands for a float (PEP 484), as static checkers have it.
checks = BeartypeConf(is_pep484_tower=True, claw_skip_package_names=LONG)
beartype_packages([f"innervision.{name}" for name in COMPUTES], conf=checks)
