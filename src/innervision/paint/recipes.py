"""Recipes: every choice that makes a stylised picture, in one place, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypedDict, Unpack

from innervision.errors import Invalid, unknown

Colour = Literal["free", "keep", "match", "transfer-only"]

STARTS = ("content", "noise", "style", "grey")
"""What a recipe's `start` can be; anything else is a picture file."""

DISTANCES = ("mean", "sum", "half-root")  # as in core.measures, which would load torch for a mere --help
GRAM_NORMS = ("hw", "chw", "none")

COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "free": "the painting takes colours from the style as it likes",
        "keep": "the content's colours stay: only luma is painted",
        "match": "the style is given the content's colours before its style is taken",
        "transfer-only": "the content takes the style's colours and nothing is painted",
    }
)


def _option(default: Any, help: str, *, choices: tuple[str, ...] = (), group: str = "Picture") -> Any:
    """Declare a recipe's field; commands, forms and documentation read its default and help from here."""
    return field(default=default, metadata={"help": help, "choices": choices, "group": group})


def _positive(recipe: Recipe, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if value is not None and not value > 0:
            raise Invalid(f"{name} is {value}; it must be more than 0")


def _not_negative(recipe: Recipe, *names: str) -> None:
    for name in names:
        value = getattr(recipe, name)
        if not value >= 0:
            raise Invalid(f"{name} is {value}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice that makes a stylised picture. The defaults are the preset `gatys`."""

    # fmt: off
    size: int | None = _option(512, "longest side of the painting in pixels; 'content' for the content's own size", group="Size")
    pixels: int | None = _option(None, "number of pixels of the painting, instead of --size", group="Size")
    style_size: int | None = _option(None, "longest side at which the style is looked at: larger gives larger strokes (default: as many pixels as the painting)", group="Size")
    stages: tuple[tuple[int, int], ...] | Literal["auto"] | None = _option("auto", "coarse to fine: 'auto' halves the size down to 64 px on the short side, 'none' paints at full size alone, or SIZE:STEPS,SIZE:STEPS,… by longest side, instead of --size and --steps", group="Size")
    steps: int = _option(100, "evaluations of the network at full size", group="Descent")
    coarse_steps: int = _option(40, "evaluations at each smaller size of --stages auto", group="Descent")
    optimiser: Literal["lbfgs", "adam"] = _option("lbfgs", "L-BFGS needs about half of Adam's evaluations", choices=("lbfgs", "adam"), group="Descent")
    learning_rate: float = _option(10.0, "of Adam, in the units of --units a step", group="Descent")
    late_steps: int = _option(0, "the last steps, which Adam takes at --late-learning-rate and without --clamp", group="Descent")
    late_learning_rate: float = _option(0.1, "of Adam's last steps", group="Descent")
    clamp: float | None = _option(None, "keep the network's input within ± this many standard deviations (Adam)", group="Descent")
    history: int = _option(12, "pairs L-BFGS remembers, each two pictures of memory", group="Descent")
    canvas: Literal["auto", "detail", "pixels"] = _option("auto", "what is descended: 'detail' moves large forms as readily as fine ones, 'pixels' the plain pixels; auto is detail for L-BFGS, pixels for Adam", choices=("auto", "detail", "pixels"), group="Descent")
    until: float | None = _option(None, "stop when the picture changes by less than this percentage between snapshots", group="Descent")
    every: int = _option(20, "steps between snapshots", group="Descent")
    start: str = _option("content", "what is painted over: content, noise, style, grey, or a picture file", group="Picture")
    seed: int = _option(0, "of the noise", group="Picture")
    color: Colour = _option("free", "; ".join(f"{name}: {text}" for name, text in COLOURS.items()), choices=tuple(COLOURS), group="Picture")  # noqa: RUF009
    color_match: Literal["covariance", "histogram"] = _option("covariance", "how colours are matched: mean and covariance, or each channel's histogram", choices=("covariance", "histogram"), group="Picture")
    net: str = _option("vgg19", "a network by name (see `innervision nets`), or FILE.py:FUNCTION for your own", group="Network")
    weights: str | None = _option(None, "a weights file for the network: .safetensors, .pth, .h5 or .npz", group="Network")
    mean: tuple[float, ...] | None = _option(None, "of the network's input, a number a channel (default: as its weights want it)", group="Network")
    std: tuple[float, ...] | None = _option(None, "of the network's input, a number a channel", group="Network")
    range: float | None = _option(None, "what white is to the network: 1 or 255", group="Network")
    order: Literal["RGB", "BGR"] | None = _option(None, "of the network's channels", choices=("RGB", "BGR"), group="Network")
    pooling: Literal["max", "average"] = _option("max", "Gatys et al. found average pooling smoother", choices=("max", "average"), group="Network")
    content_layers: tuple[str, ...] | None = _option(None, "layers that hold the content (default by network: relu4_2 of a VGG)", group="Weights")
    content_layer_weights: tuple[float, ...] | None = _option(None, "a weight each (default 1)", group="Weights")
    content_weight: float = _option(1.0, "weight of the content", group="Weights")
    content_distance: str = _option("mean", "squared differences: their mean, their sum, or 'half-root', Σ/(2√C√HW)", choices=DISTANCES, group="Weights")
    style_layers: tuple[str, ...] | None = _option(None, "layers that hold the style (default by network: relu1_1 … relu5_1 of a VGG)", group="Weights")
    style_layer_weights: tuple[float, ...] | None = _option(None, "a weight each (default 1/C², C its channels)", group="Weights")
    style_weight: float = _option(1000.0, "weight of the style", group="Weights")
    style_weights: tuple[float, ...] | None = _option(None, "the share of each style picture (default: equal)", group="Weights")
    style_distance: str = _option("mean", "between Gram matrices: mean or sum of squares", choices=("mean", "sum"), group="Weights")
    gram_norm: str = _option("hw", "Gram matrices are divided by H·W, by C·H·W, or not at all", choices=GRAM_NORMS, group="Weights")
    units: Literal["byte", "normalised"] = _option("byte", "scale of activations the weights are meant for: of networks fed 0..255, or (x−mean)/std", choices=("byte", "normalised"), group="Weights")
    tv_weight: float = _option(0.0, "weight of the total variation: more gives a smoother picture", group="Weights")
    tv_form: str = _option("mean", "mean or sum over neighbours of |Δ|^power, or 'pairs', Σ(Δx²+Δy²)^power", choices=("mean", "sum", "pairs"), group="Weights")
    tv_power: float = _option(2.0, "power of the total variation", group="Weights")
    gamut_weight: float = _option(1e4, "weight of colours no file can hold (L-BFGS leaves the gamut; clipping loses what was gained there)", group="Weights")
    precision: Literal["auto", "float32", "bfloat16"] = _option("auto", "of the network; auto is bfloat16 where the processor gains from it", choices=("auto", "float32", "bfloat16"), group="Machine")
    threads: int | None = _option(None, "processor threads (default: torch's choice)", group="Machine")
    device: str = _option("auto", "cpu, cuda, cuda:1, mps …; auto takes a CUDA GPU when there is one", group="Machine")
    # fmt: on

    def __post_init__(self) -> None:
        _positive(
            self, "size", "pixels", "style_size", "steps", "coarse_steps", "every", "history", "threads"
        )
        _positive(self, "learning_rate", "late_learning_rate", "until", "clamp", "tv_power")
        _not_negative(self, "late_steps", "content_weight", "style_weight", "tv_weight", "gamut_weight")
        for option in options():
            value, choices = getattr(self, option.name), option.metadata["choices"]
            if choices and value not in choices and not (value is None is option.default):
                raise Invalid(f"{option.name} is {value!r}; it can be {', '.join(choices)}")
        for name in ("style_weights", "style_layer_weights", "content_layer_weights"):
            weights = getattr(self, name)
            if weights is not None and not (all(weight >= 0 for weight in weights) and sum(weights) > 0):
                raise Invalid(f"{name} {weights}: weights are 0 or more, and not all 0")
        if not -(2**63) <= self.seed < 2**64:
            raise Invalid(f"seed is {self.seed}; it must fit into 64 bits")
        if self.threads is not None and self.threads > 1024:  # the system's own refusal is a crash
            raise Invalid(f"threads is {self.threads}; it can be 1 to 1024, and best the processor's cores")
        if isinstance(self.stages, tuple):
            if not self.stages or any(size < 1 or steps < 1 for size, steps in self.stages):
                raise Invalid(f"stages {self.stages}: give SIZE:STEPS pairs, each at least 1")
        elif self.stages not in ("auto", None):
            raise Invalid(f"stages is {self.stages!r}; it can be 'auto', None, or a tuple of (SIZE, STEPS)")
        weights = (self.content_weight, self.style_weight, self.tv_weight, self.gamut_weight)
        if not any(weights) and self.color != "transfer-only":
            raise Invalid("content, style, tv and gamut weights are all 0: there is nothing to paint for")
        last = self.stages[-1][1] if isinstance(self.stages, tuple) else self.steps
        if self.late_steps >= last:
            raise Invalid(
                f"late_steps is {self.late_steps}; the last size has {last} steps, of which they are a part: "
                "give fewer of them, or more steps"
            )
        if self.optimiser == "lbfgs" and (self.clamp is not None or self.late_steps):
            raise Invalid(
                "clamp and late_steps go with --optimiser adam: L-BFGS cannot bear edits between steps"
            )


class Options(TypedDict, total=False):
    """The same choices as keyword arguments (a test keeps the two in step)."""

    size: int | None
    pixels: int | None
    style_size: int | None
    stages: tuple[tuple[int, int], ...] | Literal["auto"] | None
    steps: int
    coarse_steps: int
    optimiser: Literal["lbfgs", "adam"]
    learning_rate: float
    late_steps: int
    late_learning_rate: float
    clamp: float | None
    history: int
    canvas: Literal["auto", "detail", "pixels"]
    until: float | None
    every: int
    start: str
    seed: int
    color: Colour
    color_match: Literal["covariance", "histogram"]
    net: str
    weights: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    range: float | None
    order: Literal["RGB", "BGR"] | None
    pooling: Literal["max", "average"]
    content_layers: tuple[str, ...] | None
    content_layer_weights: tuple[float, ...] | None
    content_weight: float
    content_distance: str
    style_layers: tuple[str, ...] | None
    style_layer_weights: tuple[float, ...] | None
    style_weight: float
    style_weights: tuple[float, ...] | None
    style_distance: str
    gram_norm: str
    units: Literal["byte", "normalised"]
    tv_weight: float
    tv_form: str
    tv_power: float
    gamut_weight: float
    precision: Literal["auto", "float32", "bfloat16"]
    threads: int | None
    device: str


def start_file(start: str) -> str | None:
    """Return the picture file that a recipe's start names, None for a word; Invalid for one without meaning."""
    if start in STARTS:
        return None
    path = Path(start)
    if path.name == start and not path.suffix and ":" not in start and not path.exists():
        raise unknown("start", start, (*STARTS, "a picture file"))
    return start


def options() -> tuple[Field[Any], ...]:
    """Return the recipe's fields, with help, choices and group in their metadata."""
    return fields(Recipe)


@dataclass(frozen=True)
class Preset:
    """A named recipe and where it comes from."""

    recipe: Recipe
    text: str
    on: Mapping[str, Options] = field(default_factory=dict)  # what changes on nets whose names begin so


def recipe(preset: str = "gatys", base: Recipe | None = None, **options: Unpack[Options]) -> Recipe:
    """Return a preset's recipe, or `base` in its place, with these options over it.

    Raises Invalid for what is not allowed, and for an option that there is not, with the nearest that are.
    """
    names = [option.name for option in fields(Recipe)]
    for name in options:
        if name not in names:
            raise unknown("option", name, names, of="a recipe")
    if base is not None:
        return replace(base, **options)
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    chosen = PRESETS[preset].recipe
    net = options.get("net", chosen.net)
    for family, changes in PRESETS[preset].on.items():
        if net.startswith(family) and ":" not in net:
            chosen = replace(chosen, **changes)
    if options.get("optimiser") == "lbfgs":  # what the preset has for Adam alone goes with it
        chosen = replace(chosen, optimiser="lbfgs", clamp=None, late_steps=0)
    return replace(chosen, **options)


_KERAS_SIZES = tuple(1 / (36 * 5 * 16**k) for k in range(5))

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "gatys": Preset(
            Recipe(),
            "Gatys, Ecker and Bethge 2016 with the weights of their own notebook: content relu4_2, "
            "style relu1_1 … relu5_1 weighted 1000/C², no total variation. Painted coarse to fine on a "
            "spectrum that moves large forms as readily as fine ones, within the gamut of a file.",
        ),
        "article": Preset(
            Recipe(
                net="squeezenet1_1", size=400, stages=None, steps=200, optimiser="adam", learning_rate=3.0,
                late_steps=20, late_learning_rate=0.1, clamp=1.5, every=100, units="normalised",
                content_weight=6e-2, content_distance="sum", style_weight=1.0,
                style_layer_weights=(300000.0, 1000.0, 15.0, 3.0), style_distance="sum", gram_norm="chw",
                tv_weight=2e-2, tv_form="sum", gamut_weight=0.0,
            ),
            "The article's program, after Stanford's CS231n 2017: SqueezeNet 1.1 at 400 px, 200 steps of Adam "
            "at 3.0 (0.1 for the last 20), start from the content. Its output was stretched min to max; "
            "here it is clipped. The weights are fetched once: innervision weights fetch squeezenet1_1-torchvision. "
            "With --net vgg19 its numbers act on the layers of the same stride.",
            on={"vgg": Options(
                content_layers=("relu3_1",), style_layers=("relu2_1", "relu3_2", "relu4_1", "relu4_2")
            )},
        ),
        "titu1994": Preset(
            Recipe(
                size=400, stages=None, steps=200, content_layers=("relu5_2",), content_weight=0.025,
                content_distance="sum", style_weight=1.0, style_layer_weights=_KERAS_SIZES, style_distance="sum",
                tv_weight=8.5e-5, tv_form="pairs", tv_power=1.25, gamut_weight=1e4, canvas="pixels",
            ),
            "titu1994's Neural-Style-Transfer after the Keras example: content conv5_2 (after its ReLU, as in "
            "Keras), each layer's Gram scaled by the picture's pixels, total variation to the power 1.25. "
            "Departures: styles keep their aspect, L-BFGS keeps its memory, and colours stay in the gamut.",
        ),
    }
)  # fmt: skip
