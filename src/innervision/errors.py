"""Every error innervision raises on purpose.

InnervisionError            what was given, what is allowed, what to do; the commands print it and exit 2
├── Invalid                 a value that is not allowed (also a ValueError)
├── NotAnImage              these bytes are no picture that can be read
├── ImageTooLarge           more pixels than the limit: raise `max_pixels` or shrink the picture
├── WeightsMissing          a weights file that must be fetched, or put in a named place
├── WeightsUnfit            a weights file that is damaged or belongs to another network
├── DownloadFailed          a transfer that broke off: trying again goes on where it stopped
├── OutOfMemory             the work would not fit: carries a size that would
├── Diverged                the loss is no longer a number
└── RunUnusable             a run folder that cannot be written or resumed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InnervisionError(Exception):
    """Base of all errors meant for a person; its text is one clear line."""


class Invalid(InnervisionError, ValueError):
    """A value that is not allowed."""


class NotAnImage(InnervisionError):
    """These bytes are no picture that can be read."""


class ImageTooLarge(InnervisionError):
    """A picture with more pixels than the limit."""


class WeightsMissing(InnervisionError):
    """A weights file that is not on this machine."""


class WeightsUnfit(InnervisionError):
    """A weights file that is damaged or belongs to another network."""


class DownloadFailed(InnervisionError):
    """A transfer that did not finish."""


class OutOfMemory(InnervisionError):
    """Work that would not fit into memory."""


class Diverged(InnervisionError):
    """A loss that is no longer a number."""


class RunUnusable(InnervisionError):
    """A run folder that cannot be written or resumed."""


def unknown(kind: str, name: str, allowed: Iterable[str], *, of: str = "") -> Invalid:
    """Return the error for a name that is not in a list, with the nearest names that are.

    >>> str(unknown("layer", "conv6_1", ["conv5_1", "conv5_2"], of="vgg16"))
    "no layer 'conv6_1' in vgg16, which has conv5_1, conv5_2. Did you mean 'conv5_1' or 'conv5_2'?"
    """
    names = list(allowed)
    shown = names if len(names) <= 24 else [*names[:10], "…", *names[-10:]]
    near = difflib.get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    where = f" in {of}, which has" if of else "; there are"
    return Invalid(f"no {kind} {name!r}{where} {', '.join(shown)}.{hint}")


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there was no memory left, of whichever kind."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text
