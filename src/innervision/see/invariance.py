"""What a layer does not notice: how far its features move when the picture is shifted, scaled or turned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innervision.errors import Invalid, unknown
from innervision.network import Network
from innervision.see.units import most_at_once, seen_by_default
from innervision.sheets import FAINT, INK, PAPER

MOVES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "shift": tuple(n / 100 for n in range(-25, 26, 5)),  # Zeiler & Fergus: 60 of 224 px each way
        "scale": tuple(1 + n / 10 for n in range(-4, 9)),  # 1 … 1.8, and below 1 too
        "rotation": tuple(float(n) for n in range(0, 360, 15)),
    }
)
"""How a picture is moved, and how far: shares of its height, factors, degrees counter-clockwise."""


@dataclass(frozen=True, eq=False)
class Response:
    """How far features move, and the class with them, as a picture is moved."""

    kind: str  # of MOVES
    amounts: tuple[float, ...]
    distances: Mapping[
        str, NDArray[np.float64]
    ]  # layer -> (amounts,), relative: 1 is the features' own length
    chosen: int | None  # the class found in the picture as it is, where the network is a classifier …
    probabilities: NDArray[np.float64] | None  # … and its probability (amounts,)


def invariance(
    network: Network,
    image: Tensor,
    kind: str,
    layers: Iterable[str] | None = None,
    *,
    amounts: Sequence[float] | None = None,
) -> Response:
    """Return each layer's ‖f(moved) - f(image)‖ / ‖f(image)‖ for a picture (1, 3, h, w) moved by amounts.

    kind: "shift" (down, in shares of the height), "scale" (a factor) or "rotation" (degrees). What comes
    into the picture from outside is its mirror image. At the identity the distance is 0. Zeiler & Fergus
    2013, figure 5; departures: distances are relative, so that layers can be compared; mirrored borders,
    which bring no new edge; all layers instead of the first and the last but one; factors below 1 too.
    Raises Invalid for another kind, no amounts, or a layer that answers 0 to the picture as it is.
    """
    if kind not in MOVES:
        raise unknown("way to move a picture", kind, MOVES)
    if image.ndim != 4 or image.shape[0] != 1:
        raise Invalid(f"one picture is moved at a time: (1, 3, h, w), not {tuple(image.shape)}")
    steps = tuple(MOVES[kind] if amounts is None else amounts)
    if not steps:
        raise Invalid(f"no amounts to move the picture by: give some, such as {MOVES[kind][:3]}")
    names = seen_by_default(network) if layers is None else tuple(dict.fromkeys(network.check(layers)))
    if not names:
        raise Invalid(f"{network.name} has neither ReLU nor Conv2d modules: name some of its layers")
    some = max(1, most_at_once((image.shape[-2], image.shape[-1])) - 1)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    shares: list[Tensor] = []
    with torch.inference_mode(False), torch.no_grad():
        for first in range(0, len(steps), some):
            moved = torch.cat([image, *(move(image, kind, step) for step in steps[first : first + some])])
            for name, answer in network.features(moved, names).items():
                found[name].append(_distances(answer, name))
            if first and not shares:
                continue  # no classifier: it need not be asked again
            answer = network(moved)
            if answer.ndim == 2:
                shares.append(answer.float().softmax(1).cpu())
    distances = {name: torch.cat(values).double().numpy() for name, values in found.items()}
    if not shares:
        return Response(kind, steps, distances, None, None)
    chosen = int(shares[0][0].argmax())
    probabilities = torch.cat([share[1:, chosen] for share in shares]).double().numpy()
    return Response(kind, steps, distances, chosen, probabilities)


def _distances(answer: Tensor, name: str) -> Tensor:
    """Return how far all rows but the first lie from the first, by its length."""
    flat = answer.flatten(1).float() if answer.dtype != torch.float64 else answer.flatten(1)
    own = flat[0].norm()
    if not own > 0:
        raise Invalid(f"layer {name!r} answers {'0' if own == 0 else 'NaN'} to the picture: leave it out")
    return ((flat[1:] - flat[0]).norm(dim=1) / own).cpu()


def move(image: Tensor, kind: str, amount: float) -> Tensor:  # Float[Tensor, "n 3 h w"]
    """Return a picture shifted down, scaled or turned counter-clockwise; by nothing, the picture itself.

    Bicubic, mirrored at the borders, clamped to 0..1.
    """
    h, w = image.shape[-2:]
    if kind == "shift":
        amount, rows = 0.0, amount * h
        still = rows == 0
    else:
        rows = 0.0
        still = amount == 1 if kind == "scale" else amount % 360 == 0
    if still:
        return image
    if kind == "scale" and amount <= 0:
        raise Invalid(f"a factor of {amount:g} leaves no picture: give more than 0")
    angle = math.radians(amount) if kind == "rotation" else 0.0
    factor = amount if kind == "scale" else 1.0
    # where each place of the result comes from, in pixels around the middle
    cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
    y, x = torch.meshgrid(
        torch.arange(h, dtype=torch.float64) - (h - 1) / 2,
        torch.arange(w, dtype=torch.float64) - (w - 1) / 2,
        indexing="ij",
    )
    y = y - rows
    grid = torch.stack([(cos * x - sin * y) * 2 / w, (sin * x + cos * y) * 2 / h], -1)
    grid = grid.to(image.dtype).to(image.device).expand(len(image), -1, -1, -1)
    moved = F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1)


def draw(responses: Sequence[Response], *, title: str = "") -> Image.Image:
    """Draw a panel a way of moving: a line a layer, dark to pale from the first to the last.

    Below, where the network is a classifier, how likely the picture's class stays.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    paper, ink, faint = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (PAPER, INK, FAINT))
    rows = 1 + any(r.probabilities is not None for r in responses)
    figure = Figure((4.2 * len(responses) + 1.6, 3.4 * rows), dpi=150, layout="constrained", facecolor=paper)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, len(responses), squeeze=False, sharey="row")
    units = {"shift": "shift down, share of the height", "scale": "scale", "rotation": "rotation, degrees"}
    for column, response in enumerate(responses):
        axes = panels[0, column]
        colours = colormaps["plasma"](np.linspace(0.2, 1, len(response.distances)))
        for (name, values), colour in zip(response.distances.items(), colours, strict=True):
            axes.plot(response.amounts, values, color=colour, label=name, linewidth=1.3)
        if rows == 2 and response.probabilities is not None:
            panels[1, column].plot(response.amounts, response.probabilities, color="#8dd3c7", linewidth=1.5)
            panels[1, column].set_ylim(0, 1)
        panels[-1, column].set_xlabel(units[response.kind], color=ink)
    panels[0, 0].set_ylabel("distance / length of the features", color=ink)
    if rows == 2:
        panels[1, 0].set_ylabel(f"probability of class {responses[0].chosen}", color=ink)
    for axes in panels.flat:
        axes.set_facecolor(paper)
        axes.tick_params(colors=faint, labelcolor=ink, labelsize=8)
        axes.spines[:].set_color(faint)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylim(0, 1.05 * max(v.max() for r in responses for v in r.distances.values()))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside right center", frameon=False, fontsize=8, labelcolor=ink
    )
    figure.suptitle(title, color=ink, fontsize=11)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
