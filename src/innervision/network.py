"""A network as the rest of the house sees it: preprocessing, named layers, and features that stop early."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from innervision import nets, weights
from innervision.chain import Chain, chain_of
from innervision.errors import Invalid, WeightsMissing, unknown
from innervision.weights import Preprocessing


class Network:
    """A module, the preprocessing its weights expect, and its layers by name.

    Images are sRGB in 0..1, shape (n, 3, h, w), float32. Layers are the module's own names
    (`named_modules`), so that a guest's names serve as they are; the nets of this package carry
    the papers' names. The module is used in evaluation mode and handed back as it was.
    """

    def __init__(self, module: nn.Module, *, name: str, preprocessing: Preprocessing) -> None:
        self.module = module
        self.name = name
        self.preprocessing = preprocessing
        self.layers: tuple[str, ...] = tuple(n for n, _ in module.named_modules(remove_duplicate=False) if n)
        self._chains: dict[tuple[str, ...], Chain | None] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"Network({self.name!r}, {len(self.layers)} layers, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        return next((t.device for t in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((t.dtype for t in self.module.parameters()), torch.float32)

    def check(self, layers: Iterable[str]) -> tuple[str, ...]:
        """Return the layers' names as a tuple; raise Invalid, with near names, for one that does not exist."""
        names = tuple(layers)
        for name in names:
            if name not in self.layers:
                raise unknown("layer", name, self.layers, of=self.name)
        return names

    def features(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Run the network no further than the deepest of these layers; return name -> activation.

        image: (n, 3, h, w), sRGB 0..1. Activations come in the network's dtype, with a gradient to
        the image where the caller's grad mode and the image ask for one. A module that is called
        several times gives its last call before the pass ends (all wanted layers seen once).
        A frozen chain of convolutions takes a shorter way to the same numbers (see `chain`).
        """
        wanted = self.check(layers)
        if not wanted:
            return {}
        x = self.preprocessing(image.to(self.device))
        chain = self._chain(wanted)
        if chain is not None:
            return chain(x.to(self.dtype))
        with self._lock, evaluating(self.module):
            return _hooked(self.module, x.to(self.dtype), wanted)

    def __call__(self, image: Tensor) -> Tensor:
        """Return what the whole module answers (a classifier's logits) to sRGB pictures in 0..1."""
        with self._lock, evaluating(self.module):
            return self.module(self.preprocessing(image.to(self.device)).to(self.dtype))

    def frozen(self, dtype: torch.dtype = torch.float32) -> Network:
        """Return a copy whose weights take no gradient, in this dtype, laid out channels last.

        Gradients to the image stay: this is the network to look through, not to train.
        """
        module = copy.deepcopy(self.module).requires_grad_(False).eval()
        module = module.to(dtype=dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return Network(module, name=self.name, preprocessing=self.preprocessing)

    def to(self, device: torch.device | str) -> Network:
        """Move the module to a device; return the network itself."""
        self.module.to(device)
        self._chains.clear()
        return self

    def _chain(self, wanted: tuple[str, ...]) -> Chain | None:
        if any(p.requires_grad for p in self.module.parameters()):
            return None
        if wanted not in self._chains:
            self._chains[wanted] = chain_of(self.module, wanted)
        return self._chains[wanted]


def wrap(
    module: nn.Module,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    range: float = 1,
    order: weights.Order = "RGB",
    name: str | None = None,
) -> Network:
    """Make a Network of any module: the user's, torchvision's, timm's.

    mean, std: one a channel (a single one: a network of grey images), in units of `range` (1 or 255); order: "RGB" or "BGR".
    The module is kept, not copied.
    """
    if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(f"wrap() takes a torch.nn.Module, not {type(module).__name__}")
    pre = Preprocessing(mean=tuple(mean), std=tuple(std), range=range, order=order)
    return Network(module, name=name or type(module).__name__.lower(), preprocessing=pre)


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
    """Return a network by name with its weights, on the CPU in float32.

    name: one of `nets.NETS`, or "FILE.py:FUNCTION" for a user's module (the function takes no
    arguments and returns it). weights_file: a file to load instead of the published weights;
    its preprocessing is its card's when the file is a known one, else the net's usual one, and
    mean, std, range and order override it. Raises WeightsMissing, saying how to get them, when
    the published weights are not on this machine.
    """
    card = None
    path = Path(weights_file) if weights_file is not None else None
    if path is not None and not path.is_file():
        raise WeightsMissing(f"no weights file {str(path)!r}")
    if ":" in name:
        module = _from_file(name)
        if path is not None:
            card = weights.identify(path)
    else:
        if name not in nets.NETS:
            raise unknown("net", name, nets.NETS)
        card = (weights.identify(path) if path else None) or weights.default(name)
        if path is None:
            if card is None:
                raise WeightsMissing(
                    f"{name} has no published weights: give a file with --weights (weights_file=)"
                )
            path = weights.locate(card)
        module = nets.build(name, pooling=pooling, top=_has_top(path, card), device="cpu")
    if path is not None:
        weights.load(module, path)
    known = card.preprocessing if card else Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pre = Preprocessing(
        mean=known.mean if mean is None else tuple(mean),
        std=known.std if std is None else tuple(std),
        range=known.range if range is None else range,
        order=known.order if order is None else order,
    )
    return Network(module.eval(), name=name, preprocessing=pre)


def _has_top(path: Path, card: weights.WeightCard | None) -> bool:
    """Tell whether a file holds a classifier too, or the convolutional base alone."""
    if card is not None and weights.identify(path) == card:
        return card.head
    state = weights.read_state(path).tensors
    return any(n.startswith(("fc", "classifier", "conv10", "predictions")) for n in state)


def _from_file(name: str) -> nn.Module:
    """Import FILE.py and call its FUNCTION: a user's own module."""
    file, _, function = name.rpartition(":")
    if not Path(file).is_file():
        raise Invalid(
            f"no file {file!r} in --net {name!r}: give FILE.py:FUNCTION, or one of {', '.join(nets.NETS)}"
        )
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise Invalid(f"{file!r} is no Python file: give FILE.py:FUNCTION")
    source = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(source)
    except Exception as error:
        raise Invalid(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    build = getattr(source, function, None)
    if build is None:
        raise Invalid(f"no {function!r} in {file}: give FILE.py:FUNCTION")
    module = build if isinstance(build, nn.Module) else build()
    if not isinstance(module, nn.Module):
        raise Invalid(f"{function}() in {file} returns {type(module).__name__}, not a torch.nn.Module")
    return module


class _Enough(Exception):
    """Ends a forward pass once every wanted layer has answered."""


def _hooked(module: nn.Module, x: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Collect activations by hooks that are gone afterwards, whatever happens."""
    cloned: set[str] = set()
    while True:
        kept: dict[str, Tensor] = {}
        versions: dict[str, int] = {}
        handles = []

        def keep(name: str):
            def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
                if not isinstance(output, Tensor):
                    raise Invalid(f"layer {name!r} answers {type(output).__name__}, not one tensor")
                kept[name] = output
                if len(kept) == len(wanted):
                    raise _Enough
                if name in cloned:
                    return output.clone()
                versions[name] = output._version
                return None

            return hook

        named = dict(module.named_modules(remove_duplicate=False))
        try:
            for name in wanted:
                handles.append(named[name].register_forward_hook(keep(name)))
            with contextlib.suppress(_Enough):
                module(x)
        finally:
            for handle in handles:
                handle.remove()
        missing = [name for name in wanted if name not in kept]
        if missing:
            raise Invalid(f"the forward pass never calls layer {missing[0]!r} as a module")
        # An in-place operation (ReLU) may have overwritten what a hook kept: then keep that layer's
        # own tensor and let the pass go on with a copy.
        spoiled = {name for name, version in versions.items() if kept[name]._version != version}
        if not spoiled:
            return kept
        cloned |= spoiled


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts into evaluation mode and give every train flag back."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
