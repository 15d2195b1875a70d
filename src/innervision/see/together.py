"""Units of one layer excited together, each by pictures of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from innervision.core import Canvas, Frame, Objective, Phases, Stage, descend, diversity, sized
from innervision.core import excite as excitement
from innervision.core.canvas import Size
from innervision.core.excitement import Excite
from innervision.core.measures import same
from innervision.errors import Invalid
from innervision.images import resize
from innervision.network import Network
from innervision.see.activations import nonlinearities
from innervision.see.opened import Opened
from innervision.see.presets import LOOKS, Preset, photographs
from innervision.see.target import Target
from innervision.see.tokens import arranged

_OUTPUT = "output"  # what a classifier's own answer is called where layers have names
_LET_THROUGH = 16  # steps at least, and as long as a picture is dead


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the space of a layer's channels: a weight for each."""

    layer: str
    vector: Tensor  # (c,)
    place: tuple[int, int] | None = None  # row and column in the layer's map
    power: float = 0.0  # of the cosine, see `core.excite`
    name: str = "direction"

    def __str__(self) -> str:
        return f"{self.layer}:{self.name}"


Unit = Target | Direction


@dataclass(frozen=True, eq=False)
class Excited:
    """What excites a unit: its pictures, and what it answered to the start and to them (means over them)."""

    unit: Unit
    images: Tensor  # (pictures, 3, h, w), sRGB 0..1, on the CPU
    before: float
    after: float
    opacity: Tensor | None = None  # (pictures, 1, h, w), 0..1: what of them to show; of MaCo's alone


@dataclass(frozen=True)
class Plan:
    """What is done to every unit."""

    preset: Preset
    size: Size
    steps: int
    pictures: int
    diverse: float
    centre: bool
    seed: int


class Together:
    """Units of one layer, descended together."""

    def __init__(self, network: Network, units: Sequence[Unit], plan: Plan) -> None:
        self.units, self.plan = units, plan
        whole = units[0].layer is None
        module = nn.Sequential() if whole else network.module
        if whole:  # so that the output, too, has a name
            module.add_module(_OUTPUT, network.module)
        self.network = Opened(module, like=network)
        self.layer = _OUTPUT if whole else str(units[0].layer)
        self.look = LOOKS[plan.preset.look](plan.size)
        self.canvas = self._canvas()
        start = self.canvas.render().detach()
        with torch.no_grad():
            raw = Network.answers(self.network, start[:1], (self.layer,))[self.layer]
        answer = arranged(raw, plan.size)
        self.flat = answer.ndim != 4
        # what ends in classes, and what tells places apart by tokens, is made for pictures of one size
        self.fixed = self.flat or answer is not raw
        self.map: Size = (1, 1) if self.flat else (answer.shape[2], answer.shape[3])
        self._inquire(answer)
        level = plan.preset.level
        self.measured = 1.0 if level is None else level / self._usual()
        self.before = self._answers(start)

    def frames(self) -> Iterator[Frame]:
        plan, look = self.plan, self.look
        view = look.view | sized(plan.size) if self.fixed and look.moves else look.view
        colour = _mean_colour(self.network)
        stage = Stage(
            self.objective(moved=True),
            plan.steps,
            optimiser=plan.preset.optimiser,
            view=view,
            edits=plan.preset.edits(colour),
        )
        generator = torch.Generator().manual_seed(plan.seed + 1)
        self.network.opened = plan.preset.let_through
        look.done = 0.0
        for frame in descend(self.network, self.canvas, [stage], generator=generator):
            early = frame.count < _LET_THROUGH or self.network.dead
            self.network.opened = plan.preset.let_through and early
            look.done = frame.count / plan.steps
            yield frame

    def objective(self, *, moved: bool) -> Objective:
        """Return what is asked for; moved: as the views show it."""
        goal = self.measured * self._excitement(moved=moved)
        if self.plan.diverse:
            layer = self.layer
            if self.flat:
                maps = nonlinearities(self.network)
                if not maps:
                    raise Invalid(f"{self.network.name} has no maps by which pictures could differ")
                layer = maps[-1]
            goal = goal + self.plan.diverse * diversity(layer, self.plan.pictures, against=goal)
        return goal

    def _excitement(self, *, moved: bool) -> Objective:
        first, each = self.units[0], self.plan.pictures
        place = self._place(first, self.look.padding if moved else 0)
        if isinstance(first, Direction):
            vectors = [unit.vector for unit in self.units if isinstance(unit, Direction)]
            rows = torch.stack(vectors).repeat_interleave(each, 0)
            return excitement(self.layer, direction=rows, power=first.power, place=place)
        channels = [unit.channel for unit in self.units if isinstance(unit, Target)]
        if channels[0] is None:
            return excitement(self.layer, place=place)
        return excitement(
            self.layer, [c for c in channels if c is not None for _ in range(each)], place=place
        )

    def _place(self, unit: Unit, padding: int) -> tuple[float, float] | None:
        """Return the one place meant, in shares of the map of the padded picture."""
        if self.flat or (unit.place is None and not self.plan.centre):
            return None
        if unit.place is None:
            return 0.5, 0.5
        shares = ((p + 0.5) / n for p, n in zip(unit.place, self.map, strict=True))
        y, x = (
            (share * side + padding) / (side + 2 * padding)
            for share, side in zip(shares, self.plan.size, strict=True)
        )
        return y, x

    def _usual(self) -> float:
        """Return the root mean square of what the layer answers to photographs of this size."""
        squares: list[Tensor] = []
        for photograph in photographs():
            picture = resize(photograph, self.plan.size).to(self.network.device, _canvas_dtype(self.network))
            with torch.no_grad():
                answer = self.network.features(picture, (self.layer,))[self.layer]
            squares.append(same(answer).square().mean())
        return max(float(torch.stack(squares).mean().sqrt()), 1e-12)

    def _inquire(self, answer: Tensor) -> None:
        """Raise Invalid for a channel, direction or place that the layer does not have."""
        for unit in self.units:
            if isinstance(unit, Target):
                unit.pick(answer)
            elif unit.vector.shape != (answer.shape[1],):
                raise Invalid(
                    f"a direction in {unit.layer} holds {answer.shape[1]} numbers, one a channel, not "
                    f"{tuple(unit.vector.shape)}"
                )

    def _answers(self, images: Tensor) -> list[float]:
        term = self._excitement(moved=False).terms[0].measure
        assert isinstance(term, Excite)
        with torch.no_grad():
            found = term.each(self.network.features(images, (self.layer,)), images)
        return found.view(len(self.units), -1).mean(1).tolist()

    def excited(self, images: Tensor) -> list[Excited]:
        self.network.opened = False
        after = self._answers(images)
        shown = images.detach().clamp(0, 1).cpu().split(self.plan.pictures)
        rows = zip(self.units, shown, self.before, after, strict=True)
        found = [Excited(unit, image.clone(), before, now) for unit, image, before, now in rows]
        if isinstance(self.canvas, Phases):
            masks = self.canvas.opacity().float().cpu().split(self.plan.pictures)
            found = [replace(each, opacity=mask.clone()) for each, mask in zip(found, masks, strict=True)]
        return found

    def _canvas(self) -> Canvas:
        plan = self.plan
        generator = torch.Generator().manual_seed(plan.seed)
        return plan.preset.canvas(
            plan.size,
            pictures=plan.pictures,
            units=len(self.units),
            colour=_mean_colour(self.network),
            generator=generator,
            like=torch.empty(0, device=self.network.device, dtype=_canvas_dtype(self.network)),
        )


def _canvas_dtype(network: Network) -> torch.dtype:
    return torch.float64 if network.dtype == torch.float64 else torch.float32


def _mean_colour(network: Network) -> Tensor:
    """Return the colour that the network's input has in the mean, red first; mid-grey if it knows none."""
    pre = network.preprocessing
    if not any(pre.mean):
        return torch.full((3,), 0.5)
    mean = torch.tensor(pre.mean) / pre.range
    mean = mean.flip(0) if pre.order == "BGR" else mean
    return mean.expand(3) if len(mean) == 1 else mean
