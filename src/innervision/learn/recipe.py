"""A Recipe: one way to train a network, as plain data with every number in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from innervision.errors import Invalid
from innervision.learn.augment import Augmentation
from innervision.learn.averages import Ema, Lookahead
from innervision.learn.optimisers import Optimiser
from innervision.learn.schedules import Constant, Schedule
from innervision.learn.schedules import explain as explain_schedule
from innervision.weights import Preprocessing

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train: the network, its input, and every number of its training."""

    name: str
    text: str
    """Where it comes from, with each departure."""
    net: str
    """A name of `nets.NETS`, or FILE.py:FUNCTION for a user's module."""
    data: str = ""
    """The data set it is for; "" for a user's own."""
    size: int = 32
    """The side of the pictures in pixels."""
    preprocessing: Preprocessing
    epochs: float
    batch: int
    """Pictures a step."""
    drop_last: bool = True
    """Whether an epoch ends before a last batch that would be smaller."""
    micro: int | None = None
    """Pictures that go through the network at once, and over which batch normalisation takes its means."""
    optimiser: Optimiser
    schedule: Schedule = field(default_factory=Constant)
    label_smoothing: float = 0.0
    clip: float | None = None
    """The greatest norm of a gradient."""
    class_weights: bool = False
    """Whether a class counts the more in the loss, the fewer pictures it has."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    average: Ema | Lookahead | None = None
    start: str = ""
    """Weights to start from, by name (see `weights.WEIGHTS`) or file; layers are found by their names."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of layers that are not trained."""
    slow: tuple[tuple[str, float], ...] = ()
    """Beginnings of the names of layers, and what their learning rate is multiplied by."""
    small: tuple[int, float] | None = None
    """A side in pixels, and the share of the epochs, from the first on, in which pictures are shrunk to it:
    what is cheap is learned first (Howard 2018, progressive resizing)."""
    whiten: int = 0
    """Training pictures by whose patches the layer `whiten` is set; its bias learns for three epochs."""
    validation: float = 0.1
    """The share of the training pictures that is held out, to choose and stop by; 0 for none."""
    keep: Literal["last", "best"] = "last"
    """Which weights are kept: the last, or those of the epoch that was best on what is held out."""
    patience: int | None = None
    """Epochs without a better result on what is held out, after which training stops."""
    views: Literal[1, 2, 6] = 1
    """Views of a test picture whose mean is reported too, beside that of the plain picture."""
    precision: Precision = "auto"
    channels_last: bool = True
    expects: str = ""
    """What it takes and gives, for a person."""

    def __post_init__(self) -> None:
        for name in ("size", "batch", "micro", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Invalid(f"{name} is {value}; it must be at least 1")
        if not 0 < self.epochs < math.inf:
            raise Invalid(f"epochs is {self.epochs}; it must be above 0")
        for name in ("validation", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise Invalid(f"{name} is {getattr(self, name)}; it must be a share, from 0 to below 1")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise Invalid(f"{name} is {getattr(self, name)!r}; it can be {', '.join(map(str, allowed))}")
        if self.small is not None and not (0 < self.small[0] <= self.size and 0 <= self.small[1] <= 1):
            raise Invalid(f"small is {self.small}; it is a side up to {self.size}, and a share of the epochs")
        if self.keep == "best" and not self.validation:
            raise Invalid("keep best needs a part that is held out: give a validation share, or keep last")
        if self.patience is not None and not self.validation:
            raise Invalid("patience needs a part that is held out: give a validation share")


_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "keep": ("last", "best"),
    "views": (1, 2, 6),
    "precision": ("auto", "float32", "bfloat16"),
}


def record(chosen: Recipe) -> dict[str, Any]:
    """Return a recipe's numbers as JSON holds them: what must agree when a run is gone on with."""
    told = ("text", "expects")
    return {f.name: _deep(getattr(chosen, f.name)) for f in fields(chosen) if f.name not in told}


def _deep(value: Any) -> Any:
    """Return a value as JSON gives it back, each dataclass within another with its kind."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return {"kind": type(value).__name__, **{name: _deep(part) for name, part in parts.items()}}
    return [_deep(one) for one in value] if isinstance(value, tuple | list) else value


def explain(chosen: Recipe) -> list[tuple[str, str]]:
    """Return a recipe's numbers as (what, how), in the order of the work; what is missing does not happen."""
    pre = chosen.preprocessing
    mean, std = ("/".join(f"{v:g}" for v in values) for values in (pre.mean, pre.std))
    divided = f", divided by {std}" if set(pre.std) != {1.0} else ""
    rows = [
        ("network", chosen.net + (f", started from {chosen.start}" if chosen.start else "")),
        ("data", f"{chosen.data or 'your own'} at {chosen.size}x{chosen.size}"),
        ("input", f"0..{pre.range:g} minus {mean}{divided}"),
        ("augmentation", str(chosen.augmentation)),
        ("epochs", f"{chosen.epochs:g}, in batches of {chosen.batch}{_parts(chosen)}"),
        ("smaller", "" if chosen.small is None else _small(*chosen.small)),
        ("optimiser", _told(chosen.optimiser)),
        ("learning rate", explain_schedule(chosen.schedule)),
        ("label smoothing", f"{chosen.label_smoothing:g}" if chosen.label_smoothing else ""),
        ("gradients", f"clipped to norm {chosen.clip:g}" if chosen.clip else ""),
        ("classes", "weighted by how few pictures they have" if chosen.class_weights else ""),
        ("average", _told(chosen.average) if chosen.average else ""),
        ("not trained", ", ".join(f"{name}…" for name in chosen.frozen)),
        ("slower", ", ".join(f"{name}… × {factor:g}" for name, factor in chosen.slow)),
        ("whitening", f"from {chosen.whiten:,} training pictures" if chosen.whiten else ""),
        ("held out", f"{chosen.validation:.3g} of the training pictures" if chosen.validation else ""),
        ("kept", f"the {chosen.keep} weights" + _stops(chosen)),
        ("tested", "plain" + (f", and by {chosen.views} views of each picture" if chosen.views > 1 else "")),
        ("precision", chosen.precision + ("" if chosen.channels_last else ", channels first")),
        ("expects", chosen.expects),
    ]
    return [(what, how) for what, how in rows if how]


def _small(side: int, share: float) -> str:
    return f"pictures are shrunk to {side}x{side} in the first {share:.0%} of the epochs"


def _parts(chosen: Recipe) -> str:
    return f", {chosen.micro} through the network at once" if chosen.micro else ""


def _stops(chosen: Recipe) -> str:
    return f"; stops after {chosen.patience} epochs without a better one" if chosen.patience else ""


def _told(value: Any) -> str:
    parts = asdict(value)
    rest = parts.pop("rest", None)
    said = {name: f"{one:.4g}" if isinstance(one, float) else one for name, one in parts.items()}
    text = " ".join([type(value).__name__, *(f"{name} {one}" for name, one in said.items())])
    return text + (f"; for the rest {_told(value.rest)}" if rest else "")
