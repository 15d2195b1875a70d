"""What a method of `innervision attribute` says of a target, and how that is kept, to be gone on with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.see.curves import Curves
    from innervision.see.target import Target
    from innervision.see.trust import Trust

_ABOUT = "explained"  # the entry of a file's metadata


@dataclass(frozen=True, eq=False)
class Explained:
    """A method's map, what it says of itself, and whether it can be trusted; or why there is none."""

    method: str
    map: Tensor | None  # (1, 3, h, w), or (1, h, w)
    values: dict[str, float]
    trust: Trust | None = None
    refused: str = ""
    curves: Curves | None = None
    by_chance: Curves | None = None

    def numbers(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        if self.map is None:
            return {"refused": self.refused}
        from innervision.see.trust import strength

        strong = strength(self.map)
        at = int(strong.argmax())
        numbers: dict[str, Any] = {
            **self.values,
            "least": float(self.map.min()),
            "greatest": float(self.map.max()),
            "sum": float(self.map.sum()),
            "strongest": [at // strong.shape[1], at % strong.shape[1]],  # row, column
        }
        if self.curves is not None and self.by_chance is not None:
            numbers["curves"] = {**self.curves.numbers(), "chance": self.by_chance.numbers()}
        if self.trust is not None:
            numbers["trust"] = {
                "depends": self.trust.depends,
                "rank": self.trust.rank,
                "error": self.trust.error,
                "certain": self.trust.certain,
                "threshold": self.trust.threshold,
                "layers": [
                    {
                        "layer": c.layer,
                        "random": c.layers,
                        "of": c.of,
                        "rank": None if math.isnan(c.rank) else c.rank,
                        "magnitude": c.magnitude,
                        "ssim": c.ssim,
                    }
                    for c in self.trust.comparisons
                ],
            }
        elif self.refused:
            numbers["trust"] = {"refused": self.refused}
        return numbers

    def line(self, target: Target) -> str:
        """Return what a person wants to know."""
        if self.map is None:
            return f"{self.method}: {self.refused}"
        parts = [f"{self.method} of {target}"]
        if "score" in self.values:
            parts[0] += f", which answers {self.values['score']:.4g}"
        if "gap" in self.values:
            gap, change = self.values["gap"], self.values["change"]
            parts.append(f"the map's sum misses the change from the baseline, {change:.4g}, by {gap:.2g}")
        if not self.map.any():
            parts.append("0 everywhere: nothing comes down to the picture")
        if self.curves is not None and self.by_chance is not None:
            from innervision.cli.curves import said

            parts.append(said(self.curves, self.by_chance))
        if self.trust is not None:
            parts.append(str(self.trust))
        elif self.refused:
            parts.append(self.refused)
        return "; ".join(parts)

    def caption(self) -> str:
        """Return what stands below a map."""
        if self.map is None:
            return "refused: no rule for\nthis network's activations"
        if not self.map.any():
            return "0 everywhere"
        if self.trust is None:
            return ""
        said = "depends on the weights" if self.trust.depends else "does NOT depend on the weights"
        said = said if self.trust.certain else "in doubt"
        side = "below" if self.trust.rank < self.trust.threshold else "not below"
        return f"{said}\nrank {self.trust.rank:.2f}, {side} {self.trust.threshold:g}"


def keep(path: Path, found: Explained, options: Mapping[str, Any]) -> None:
    """Write what a method says, its map as numbers, whole or not at all. options: all that it depends on.

    The maps of random weights are left out: they are drawn where one method is asked for alone.
    """
    import safetensors.torch
    import torch

    from innervision.files import atomic

    trust = found.trust
    about = {
        "options": dict(options),
        "method": found.method,
        "values": found.values,
        "refused": found.refused,
        "curves": None if found.curves is None else asdict(found.curves),
        "by_chance": None if found.by_chance is None else asdict(found.by_chance),
        "trust": None
        if trust is None
        else {
            "comparisons": [
                {name: value for name, value in vars(each).items() if name != "map"}
                for each in trust.comparisons
            ],
            **{name: value for name, value in vars(trust).items() if name != "comparisons"},
        },
    }
    map = torch.empty(0) if found.map is None else found.map.detach().cpu().contiguous()
    data = safetensors.torch.save({"map": map}, {_ABOUT: json.dumps(about)})
    with atomic(path) as draft:
        draft.write_bytes(data)


def kept(path: Path, options: Mapping[str, Any]) -> Explained | None:
    """Return what `keep` has written with these options; None where there is no such thing."""
    import safetensors
    import torch

    from innervision.see.trust import Comparison, Trust

    try:
        with safetensors.safe_open(str(path), "pt") as file:
            about = json.loads(file.metadata()[_ABOUT])
            if about["options"] != json.loads(json.dumps(dict(options))):
                return None
            map = file.get_tensor("map")
        trust = about["trust"]
        if trust is not None:
            made = tuple(Comparison(**each, map=torch.empty(0)) for each in trust.pop("comparisons"))
            trust = Trust(made, **trust)
        return Explained(
            about["method"],
            map if map.numel() else None,
            about["values"],
            trust,
            about["refused"],
            _curves(about["curves"]),
            _curves(about["by_chance"]),
        )
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None  # not there, damaged, or of another version: it is made anew


def _curves(about: dict[str, Any] | None) -> Curves | None:
    from innervision.see.curves import Curves
    from innervision.see.occlusion import Curve

    if about is None:
        return None
    both = {
        name: Curve(tuple(about[name]["shares"]), tuple(about[name]["scores"]), about[name]["area"])
        for name in ("insertion", "deletion")
    }
    return Curves(**{**about, **both})
