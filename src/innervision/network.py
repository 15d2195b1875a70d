"""A network as the rest of the house sees it: preprocessing, named layers, and features that stop early."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from innervision import models, nets, weights
from innervision.chain import Chain, Kernel, altered, chain_of
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit, unknown
from innervision.listen import evaluating, listen
from innervision.nets import imagenet
from innervision.shapes import Float
from innervision.weights import Preprocessing


class Network:
    """A module, the preprocessing its weights expect, and its layers by name.

    Images are sRGB in 0..1, shape (n, 3, h, w), floating point. Layers are the module's own names
    (`named_modules`), so that a guest's names serve as they are; the nets of this package carry
    the papers' names. The module is used in evaluation mode and handed back as it was. Several
    threads may look through one Network at once.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        classes: Sequence[str] = (),
        input_size: int | None = None,
    ) -> None:
        self.module = module
        self.name = name
        self.preprocessing = preprocessing
        self.classes = tuple(classes)  # a classifier's names, in the order of its outputs; () where unknown
        self.input_size = input_size  # the side in pixels that it was trained at; None where unknown
        self.layers: tuple[str, ...] = tuple(n for n, _ in module.named_modules(remove_duplicate=False) if n)
        self._kernels: dict[str, Kernel] = {}
        self._fragile: set[str] = set()  # layers whose answers the module overwrites afterwards
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.layers)} layers, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """The device of the first weight; the CPU for a module without any."""
        return next((t.device for t in self._tensors()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first weight; float32 for a module without any."""
        return next((t.dtype for t in self._tensors()), torch.float32)

    def _tensors(self) -> Iterator[Tensor]:
        every = itertools.chain(self.module.parameters(), self.module.buffers())
        return (t for t in every if t.is_floating_point())

    def check(self, layers: Iterable[str]) -> tuple[str, ...]:
        """Return layers' names (or a single one) as a tuple; raise Invalid, with near names, if unknown."""
        names = (layers,) if isinstance(layers, str) else tuple(layers)
        for name in names:
            if name not in self.layers:
                raise unknown("layer", name, self.layers, of=self.name)
        return names

    def features(
        self, image: Float[Tensor, "n c h w"], layers: Iterable[str]
    ) -> dict[str, Float[Tensor, "n ..."]]:
        """Run the network no further than the deepest of these layers; return name -> activation.

        image: (n, 3, h, w), sRGB 0..1. Activations come in the layers' order, in the network's dtype,
        with a gradient to the image where the caller's grad mode and the image ask for one, and as
        they were when their layer answered: a later operation in place overwrites a copy. A module
        that is called several times gives its first call. A frozen chain of convolutions takes a
        shorter way to the same numbers, once differentiable (see `chain`).
        Raises Invalid for an unknown layer, one that answers no tensor, or one that is never called.
        """
        wanted = tuple(dict.fromkeys(self.check(layers)))  # once: layers may be a generator
        found = self.answers(image, wanted)
        return {name: found[name] for name in wanted}

    def answers(
        self, image: Float[Tensor, "n c h w"], layers: Iterable[str]
    ) -> Mapping[str, Float[Tensor, "n ..."]]:
        """Return the same as `features`; where there is a shorter way, each layer when it is asked for.

        Asked for and measured in turn, from the shallowest, they need less memory (see `chain.Answers`).
        """
        wanted = tuple(dict.fromkeys(self.check(layers)))
        if not wanted:
            return {}
        grad = torch.is_grad_enabled()
        # inference_mode's tensors count no versions, by which an overwritten answer is found out
        with torch.inference_mode(False), torch.set_grad_enabled(grad):
            x = self._input(image)
            chain = self._chain(wanted, x.device)
            if chain is not None:
                return chain(x)
            with self._lock, evaluating(self.module):
                return listen(self.module, x, wanted, self._fragile)

    def __call__(self, image: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        """Return what the whole module answers (a classifier's logits) to sRGB pictures in 0..1."""
        with self._lock, evaluating(self.module):
            return self.module(self._input(image))

    def frozen(self, dtype: torch.dtype = torch.float32) -> Network:
        """Return a copy whose weights take no gradient, in this dtype, laid out channels last.

        Gradients to the image stay: this is the network to look through, not to train.
        """
        if any(map(is_lazy, self.module.parameters())):
            raise Invalid(
                f"{self.name} has layers whose size is not known yet: show it a picture once, net(image)"
            )
        module = copy.deepcopy(self.module, _computed(self.module))
        module = module.requires_grad_(False).eval().to(dtype=dtype)
        for values in (*module.parameters(), *module.buffers()):
            if values.ndim == 4:  # module.to() would ask it of five sides too, and fail
                values.data = values.data.contiguous(memory_format=torch.channels_last)
        return self.around(module)

    def upto(self, layers: Iterable[str]) -> Network:
        """Return a network that ends with the deepest of these layers: what lies behind takes no memory.

        Of a plain nn.Sequential alone it is known what comes after what; any other network is returned
        itself. The modules are shared, not copied. Raises Invalid for an unknown layer.
        """
        wanted = {name.partition(".")[0] for name in self.check(layers)}
        if type(self.module) is not nn.Sequential or altered(self.module) or not wanted:
            return self
        parts = [(name, part) for name, part in self.module._modules.items() if part is not None]
        last = max(number for number, (name, _) in enumerate(parts) if name in wanted)
        module = nn.Sequential(OrderedDict(parts[: last + 1]))
        module.training = self.module.training
        return Network(module, name=self.name, preprocessing=self.preprocessing, input_size=self.input_size)

    def around(self, module: nn.Module) -> Network:
        """Return a network of another module, alike in all else."""
        return Network(
            module,
            name=self.name,
            preprocessing=self.preprocessing,
            classes=self.classes,
            input_size=self.input_size,
        )

    def to(self, device: torch.device | str) -> Network:
        """Move the module to a device; return the network itself."""
        self.module.to(device)
        self._kernels.clear()
        return self

    def _input(self, image: Tensor) -> Tensor:
        if not image.is_floating_point():
            raise Invalid(f"an image here holds sRGB in 0..1, not {image.dtype}: divide by 255 first")
        return self.preprocessing(image.to(self.device)).to(self.dtype)

    def _chain(self, wanted: tuple[str, ...], device: torch.device) -> Chain | None:
        if any(p.requires_grad for p in self.module.parameters()) or torch.is_autocast_enabled(device.type):
            return None
        return chain_of(self.module, wanted, self._kernels)


def _computed(module: nn.Module) -> dict[int, Tensor]:
    """Return deepcopy's memo for what a module keeps that it computed, as weight_norm() does: copies."""
    kept = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor))
    return {id(value): value.detach().clone() for value in kept if not value.is_leaf}


def wrap(
    module: nn.Module,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    range: float = 1,
    order: weights.Order = "RGB",
    name: str | None = None,
    classes: Sequence[str] = (),
    input_size: int | None = None,
) -> Network:
    """Make a Network of any module: the user's, torchvision's, timm's.

    mean, std: one a channel (a single one of each: a network of grey images), in units of `range`
    (1 or 255) and in `order`, "RGB" or "BGR". classes: the names of a classifier's outputs. input_size: the
    side in pixels it was trained at. The module is kept, not copied.
    """
    if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"wrap() takes a torch.nn.Module, not {type(module).__name__}")
    pre = Preprocessing(tuple(map(float, mean)), tuple(map(float, std)), range=range, order=order)
    name = name or type(module).__name__.lower()
    return Network(module, name=name, preprocessing=pre, classes=classes, input_size=input_size)


def load(
    name: str,
    *,
    weights_file: str | Path | None = None,
    pooling: str = "max",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    range: float | None = None,
    order: weights.Order | None = None,
) -> Network:
    """Return a network by name with its weights, on the CPU in float32, in evaluation mode.

    name: one of `nets.NETS`, a trained network that comes with innervision (`models.shipped`), a run's
    folder, or "FILE.py:FUNCTION" for a user's module (the function takes no arguments and returns it).
    weights_file: a file to load instead of the published weights; it may
    end before the classifier, or have other classes. Preprocessing is that of the file's card, else
    of the net's published weights, else none; mean, std, range and order override it. A net of the house
    with a thousand classes has ImageNet's names of them.
    Raises WeightsMissing, saying how to get them, when the weights are not on this machine, and
    WeightsUnfit for a file that leaves a layer out, has one too many, or belongs to another network.
    """
    mean, std = (None if given is None else tuple(map(float, given)) for given in (mean, std))
    path = None if weights_file is None else Path(weights_file)
    if path is not None and not path.is_file():
        raise WeightsMissing(f"no weights file {str(path)!r}")
    folder = None if name in nets.NETS else models.find(name)
    if folder is not None:
        opened = load_folder(folder, weights_file=path, pooling=pooling)
        chosen = {"mean": mean, "std": std, "range": range, "order": order}
        given = {field: value for field, value in chosen.items() if value is not None}
        opened.preprocessing = replace(opened.preprocessing, **given)
        return opened
    known = weights.identify(path) if path else None
    if ":" not in name:
        module, path, card = _of_the_house(name, path, known, pooling)
    elif pooling == "max":
        module, card = _from_file(name), known
    else:
        raise Invalid(f"pooling {pooling!r} is for the nets that come with innervision: {name} has its own")
    if path is not None:
        weights.load(module, path, strict=True)
    channels = len(mean or std or (0.0,) * (nets.NETS[name].channels if name in nets.NETS else 3))
    usual = card.preprocessing if card else Preprocessing((0.0,) * channels, (1.0,) * channels)
    pre = Preprocessing(
        mean=usual.mean if mean is None else mean,
        std=usual.std if std is None else std,
        range=usual.range if range is None else range,
        order=usual.order if order is None else order,
    )
    size = nets.NETS[name].input_size if name in nets.NETS else None
    return Network(module.eval(), name=name, preprocessing=pre, classes=_names(name, module), input_size=size)


def _names(name: str, module: nn.Module) -> tuple[str, ...]:
    """Return ImageNet's names where a net of the house ends in as many classes: no base is as wide."""
    last = list(module.parameters())[-1] if name in nets.NETS else None
    return imagenet.classes() if last is not None and len(last) == len(imagenet.classes()) else ()


def load_folder(
    folder: Path,
    *,
    weights_file: Path | None = None,
    pooling: str = "max",
    module: nn.Module | None = None,
) -> Network:
    """Open the trained network of a folder, perhaps with other weights, such as an earlier checkpoint's.

    module: to be filled with them, where no file was recorded that builds it.
    """
    card = models.read_card(folder)
    own = _built(card, folder, pooling) if module is None else module
    models.fill(own, weights_file or folder / models.WEIGHTS)
    return Network(
        own.eval(),
        name=card.name,
        preprocessing=card.preprocessing,
        classes=card.classes,
        input_size=card.input_size,
    )


def _built(card: models.ModelCard, folder: Path, pooling: str) -> nn.Module:
    """Build a card's module, one of our own or a user's; its weights are yet to come."""
    if card.net and ":" not in card.net:
        options = card.options if pooling == "max" else {**card.options, "pooling": pooling}
        return models.build(replace(card, options=options))
    if pooling != "max":
        raise Invalid(f"pooling {pooling!r} is for the nets of innervision: {card.name} has its own")
    return _from_file(models.own_module(card, folder))


def _of_the_house(
    name: str, path: Path | None, known: weights.WeightCard | None, pooling: str
) -> tuple[nn.Module, Path, weights.WeightCard | None]:
    """Build one of our own nets as its weights want it; return their file and the card of its input too."""
    if name not in nets.NETS:
        raise unknown("net", name, (*nets.NETS, *models.shipped()))
    if known and known.net != name:
        raise WeightsUnfit(f"{path} holds the weights of {known.net}, not of {name}: load {known.net!r}")
    published = weights.default(name)
    if path is None:
        if published is None:
            raise WeightsMissing(f"{name} has no published weights: name a file (--weights, weights_file=)")
        known, path = published, weights.locate(published)
    top, classes = (known.head, None) if known else _classifier(name, path)
    module = nets.build(name, pooling=pooling, top=top, classes=classes, device="cpu", drawn=False)
    return module, path, known or published


def _classifier(name: str, path: Path) -> tuple[bool, int | None]:
    """Tell whether a file of a net's weights has its classifier too, and of how many classes."""
    tensors = weights.ordered(weights.read_state(path).tensors)
    matrices = {n: t for n, t in tensors.items() if t.ndim > 1}
    base, full = (
        [n for n, t in nets.build(name, top=top, device="meta").state_dict().items() if t.ndim > 1]
        for top in (False, True)
    )
    if len(matrices) <= len(base):
        return False, None
    last = matrices.get(full[-1], list(matrices.values())[-1])
    return True, None if last.shape[0] == nets.NETS[name].classes else last.shape[0]


def _from_file(name: str) -> nn.Module:
    """Import FILE.py and call its FUNCTION: a user's own module."""
    file, _, function = name.rpartition(":")
    if not Path(file).is_file():
        raise Invalid(
            f"no file {file!r} in --net {name!r}: give FILE.py:FUNCTION, or one of {', '.join(nets.NETS)}"
        )
    alias = f"innervision-guest-{Path(file).stem}"  # a name no import can mean
    spec = importlib.util.spec_from_file_location(alias, file)
    if spec is None or spec.loader is None:
        raise Invalid(f"{file!r} is no Python file: give FILE.py:FUNCTION")
    source = importlib.util.module_from_spec(spec)
    sys.modules[alias] = source  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(source)
        build = getattr(source, function, None)
        module = build() if callable(build) and not isinstance(build, nn.Module) else build
    except Exception as error:
        raise Invalid(f"{name} fails: {type(error).__name__}: {error}") from error
    if build is None:
        raise Invalid(f"no {function!r} in {file}: give FILE.py:FUNCTION")
    if not isinstance(module, nn.Module):
        raise Invalid(f"{function} in {file} gives {type(module).__name__}, not a torch.nn.Module")
    return module
