"""Trust: does a map depend on what the network has learned? (Adebayo et al. 2018, "Sanity checks")

Weights are drawn anew, layer by layer, and the map is made again. One that hardly changes shows the picture's
edges, whatever the network knows: it is no explanation of what the network does.

Maps of a few large spots may be alike by chance. How alike two such maps are by chance is measured on the
maps themselves, by shifting one over the other; and weights are drawn again until chance leaves no doubt.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.similarity import ssim
from innervision.see.target import Target

Explain = Callable[[Network, Tensor, Target], Tensor]
"""(network, image (1, 3, h, w), target) -> a map (1, c, h, w) or (1, h, w)."""

THRESHOLD = 0.5
CASCADES = 4  # at most, where the verdict is in doubt
_DRAWS = 16  # of weights, until there is a map
_MEDIAN = math.sqrt(math.pi / 2)  # how much wider than a mean a median of normal values scatters


@dataclass(frozen=True, eq=False)
class Comparison:
    """A map made again with random weights, against the one with the network's own."""

    layer: str  # the deepest-going random layer: the one nearest to the picture
    layers: int  # how many have new weights now
    of: int
    rank: float  # Spearman's correlation of the maps' values; NaN where this one is 0 everywhere
    magnitude: float  # the same of their absolute values, summed over channels
    ssim: float  # of the latter
    map: Tensor  # as the method made it
    chance: float = 0.0  # standard deviation of the rank correlation if one map is shifted over the other


@dataclass(frozen=True, eq=False)
class Trust:
    """The verdict on a method, for one picture and target."""

    comparisons: tuple[Comparison, ...]  # the first cascade's
    rank: float  # the median of all comparisons' rank correlations
    threshold: float
    draws: int = 0  # how many comparisons there were
    error: float = 0.0  # by how much chance may have moved that median: its standard error

    @property
    def certain(self) -> bool:
        """Whether the median lies farther from the threshold than two standard errors."""
        return abs(self.rank - self.threshold) >= 2 * self.error

    @property
    def depends(self) -> bool:
        """Whether the map changes when the weights are drawn anew; a method has the benefit of the doubt."""
        return self.rank < self.threshold or not self.certain

    def __str__(self) -> str:
        if not self.certain:
            return (
                "in doubt whether it depends on the weights: so coarse a map may be alike by chance "
                f"(rank correlation {self.rank:.2f} ± {self.error:.2f} in {self.draws} draws)"
            )
        if self.depends:
            return f"depends on the weights (rank correlation with random ones {self.rank:.2f})"
        return (
            "does not depend on the weights: hardly changes when they are randomised "
            f"(rank correlation {self.rank:.2f})"
        )


def trust(
    network: Network,
    image: Tensor,
    target: Target,
    explain: Explain,
    *,
    seed: int = 0,
    steps: int | None = None,
    threshold: float = THRESHOLD,
) -> Trust:
    """Return the verdict on a method by cascading randomisation: see `randomised` and `judge`."""
    made = randomised(network, image, target, explain, seed=seed, steps=steps, threshold=threshold)
    return judge(made, threshold=threshold)


def judge(comparisons: Iterable[Comparison], *, threshold: float = THRESHOLD) -> Trust:
    """Return the verdict on a cascade of comparisons, or several.

    A map depends on the weights if the median of its rank correlations with those of random weights is below
    `threshold`. Adebayo et al. draw curves and no line. The median's standard error is √(π/2)·s/√n, s² the
    mean of the comparisons' `chance`²; within two of them of the threshold the verdict is in doubt.
    Comparisons with a map that is 0 everywhere do not count. Raises Invalid where none is left, or the
    cascade was not taken to its end.
    """
    every = tuple(comparisons)
    if not every or every[-1].layers < every[-1].of:
        raise Invalid("a verdict is on a whole cascade: take it to its end")
    counted = [c for c in every if not math.isnan(c.rank)]
    if not counted:
        raise Invalid("with random weights every map is 0: there is nothing to compare")
    end = next(number for number, c in enumerate(every, 1) if c.layers == c.of)
    chance = math.sqrt(statistics.fmean(c.chance**2 for c in counted))
    return Trust(
        every[:end],
        statistics.median(c.rank for c in counted),
        threshold,
        len(counted),
        _MEDIAN * chance / math.sqrt(len(counted)),
    )


def randomised(
    network: Network,
    image: Tensor,
    target: Target,
    explain: Explain,
    *,
    cascading: bool = True,
    seed: int = 0,
    steps: int | None = None,
    cascades: int = CASCADES,
    threshold: float = THRESHOLD,
) -> Iterator[Comparison]:
    """Yield the map made anew as the layers that the target depends on lose their weights, from the top.

    cascading: more and more layers are random, until no weight is the network's own; each comparison draws
    all of them anew, so that its likeness by chance is its own. Else one layer at a time is random among
    learned ones. steps: make at most so many comparisons, evenly spaced, the last of all layers.
    explain: the method; called with a copy of the network, which stays as it is. cascades: another cascade
    follows while `judge` is in doubt of those so far by this threshold, up to so many in all.
    Weights are as before training: convolutions and fully connected layers normal by He et al. 2015 with
    biases 0, normalisation the identity, other parameters normal with the mean and deviation they had. Where
    a map is 0 everywhere, for the target answers nothing with such weights, they are drawn up to 16 times.
    Raises Invalid where no layer below the target has weights, or the original map is 0 everywhere.
    """
    if steps is not None and steps < 1:
        raise Invalid(f"steps is {steps}; it must be at least 1")
    first = explain(network, image, target)
    if not bool(first.any()):
        raise Invalid(f"the map of {target} is 0 everywhere: there is nothing to compare")
    with torch.inference_mode(False):  # whose tensors take no gradient
        module = copy.deepcopy(network.module)
    other = network.around(module)
    layers = _layers_from_the_top(other, image, target)
    learned = dict(network.module.named_modules())
    generator = torch.Generator().manual_seed(seed)
    count = len(layers)
    looks = set(range(1, count + 1))
    if steps is not None and steps < count:
        looks = {math.ceil(count * n / steps) for n in range(1, steps + 1)}
    made: list[Comparison] = []
    for cascade in range(cascades if cascading else 1):
        if cascade and (all(math.isnan(c.rank) for c in made) or judge(made, threshold=threshold).certain):
            break
        for number, (name, module) in enumerate(layers, 1):
            if number not in looks:
                continue
            drawn = layers[:number] if cascading else [(name, module)]
            map = first
            for _ in range(_DRAWS):
                for its_name, each in drawn:
                    _draw(each, learned[its_name], generator)
                map = explain(other, image, target)
                if bool(map.any()):
                    break
            made.append(_compared(name or network.name, len(drawn), count, first, map))
            yield made[-1]
            if not cascading:
                _give_back(module, learned[name])
        for name, module in layers:  # the next cascade begins among learned layers
            _give_back(module, learned[name])


def _compared(layer: str, layers: int, of: int, first: Tensor, map: Tensor) -> Comparison:
    return Comparison(layer, layers, of, *_similarity(first, map), map, chance(first, map))


def chance(a: Tensor, b: Tensor) -> float:
    """Return how alike two maps (1, c, h, w) or (1, h, w) are by chance, if what they show lay elsewhere.

    That is the root of the mean squared rank correlation over all shifts of one over the other, rows and
    columns going round. Of maps of n independent places it is about 1/√n: near 0 where every pixel says
    something of its own, and large where a few spots are all there is.
    """
    x, y = (_ranks(each).view(-1, *each.shape[-2:]) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(x.norm() * y.norm())
    if scale == 0:
        return 0.0
    found = (torch.fft.rfft2(x).conj() * torch.fft.rfft2(y)).sum(0)
    shifted = torch.fft.irfft2(found, s=x.shape[-2:]) / scale
    return float(shifted.square().mean().sqrt())


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation of two maps' values, equal ones sharing their mean rank.

    0 where a map has one value only, which has no order to agree with.
    """
    x, y = (_ranks(each) for each in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = float(x.norm() * y.norm())
    return float(x @ y) / scale if scale > 0 else 0.0


def strength(map: Tensor) -> Tensor:
    """Return how strong a map (1, c, h, w) or (1, h, w) is at each place: |values|, summed over channels."""
    flat = map.detach()[0].abs()
    return flat.sum(0) if flat.ndim == 3 else flat


def _similarity(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    p, q = strength(a).cpu(), strength(b).cpu()
    one, other = ((each / each.max() if bool(each.any()) else each)[None, None] for each in (p, q))
    side = min(11, *p.shape)
    alike = ssim(one, other, window=side - 1 + side % 2)  # small maps have a window as large as they allow
    return rank_correlation(a, b) if bool(b.any()) else math.nan, rank_correlation(p, q), alike


def _ranks(values: Tensor) -> Tensor:
    _, place, count = values.flatten().cpu().unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    return (last - (count - 1) / 2)[place]


def _layers_from_the_top(network: Network, image: Tensor, target: Target) -> list[tuple[str, nn.Module]]:
    """Return the modules whose own parameters the target depends on, those called last first."""
    named = list(network.module.named_modules())
    parameters = [p.requires_grad_(True) for p in network.module.parameters() if p.is_floating_point()]
    called: dict[nn.Module, int] = {}

    def note(module: nn.Module, _inputs: object) -> None:
        called.setdefault(module, len(called))

    handles = [module.register_forward_pre_hook(note) for _, module in named]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            score = target.score(target.of(network, image)).sum()
            found = torch.autograd.grad(score, parameters, allow_unused=True) if parameters else ()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in parameters:
            parameter.requires_grad_(False)  # the copy is looked through, not trained
    needed = {id(p) for p, g in zip(parameters, found, strict=True) if g is not None}
    layers: list[tuple[int, int, str, nn.Module]] = []
    when = -1
    for number, (name, module) in enumerate(named):
        # weights that are used without a call of their module: as late as what is defined before them
        when = called.get(module, when)
        if any(id(p) in needed for p in module.parameters(recurse=False)):
            layers.append((when, number, name, module))
    if not layers:
        raise Invalid(f"{target} depends on no weights of {network.name}: there is nothing to randomise")
    return [(name, module) for _, _, name, module in sorted(layers, key=lambda each: each[:2], reverse=True)]


@torch.no_grad()
def _give_back(module: nn.Module, learned: nn.Module) -> None:
    """Give a module's own parameters and buffers the values they had."""
    for own in (nn.Module.named_parameters, nn.Module.named_buffers):
        before = dict(own(learned, recurse=False))
        for name, value in own(module, recurse=False):
            value.copy_(before[name])


@torch.no_grad()
def _draw(module: nn.Module, learned: nn.Module, generator: torch.Generator) -> None:
    """Give a module's own parameters new values, of the kind they had before training."""
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
        module.reset_parameters()
        return
    connected = isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
    before = dict(learned.named_parameters(recurse=False))
    for name, parameter in module.named_parameters(recurse=False):
        normal = torch.randn(parameter.shape, generator=generator)  # on the CPU: the same on every device
        if connected and name == "bias":
            parameter.zero_()
        elif connected and name == "weight":
            back = isinstance(module, nn.modules.conv._ConvTransposeNd)
            fan_in = parameter[:, 0].numel() if back else parameter[0].numel()
            parameter.copy_(normal * math.sqrt(2 / fan_in))
        else:
            own = before[name].float()
            deviation = own.std() if own.numel() > 1 else own.abs().mean()
            parameter.copy_(own.mean() + deviation * normal.to(own))
