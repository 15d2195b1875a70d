"""What all tests share: while they run, the annotations of what computes are checked."""

from __future__ import annotations

from beartype import BeartypeConf
from beartype.claw import beartype_packages

COMPUTES = ("chain", "colour", "core", "network", "nets", "see", "sheets", "winograd")

# An int stands for a float (PEP 484), as static checkers have it.
beartype_packages([f"innervision.{name}" for name in COMPUTES], conf=BeartypeConf(is_pep484_tower=True))
