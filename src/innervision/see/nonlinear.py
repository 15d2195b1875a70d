"""What stands on a way back: every nonlinearity between an answer and the picture, however it is written.

Two views make one. `Watch` sees the operations go by on the way up, and the numbers that go into them: an
operation that chooses by the picture without a gradient to tell of it (x·(x > 0), where(), masked_fill(), a
threshold) is compared with max(x, 0) itself. `Way` reads autograd's graph: an operation with one input, each
number of whose answer comes of one of its numbers, is an activation unless it is known to be linear; so one
that has never been heard of is found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# Operations as autograd names them, without "Backward0", that may have one input and an answer of its size
# and are no activations: the linear, those that mix numbers by weights, and others that mix numbers.
_LINEAR_NAMES = """
    Add Sub Rsub Mul Div Neg Clone Alias ToCopy MaskedFill Where Lerp Addcmul View UnsafeView
    ReshapeAlias Permute Transpose T Squeeze Unsqueeze Expand Select Slice Flip Roll AsStrided Unfold
    Index IndexSelect Gather Repeat Split SplitWithSizes Unbind Cat Stack ConstantPadNd PixelShuffle
    PixelUnshuffle Diagonal Tril Triu ViewAsReal ViewAsComplex FftR2C FftC2R FftC2C Cumsum Mean Sum
    NativeDropout IndexPut IndexFill Scatter CopyBackwards Rot90 Chunk UnsafeSplit UnsafeSplitWithSizes
    ReshapeCopy MkldnnReshape ToMkldnn ToDense Lift LiftFresh ChannelShuffle Im2Col Col2Im IndexAdd
    IndexCopy ScatterAdd SelectScatter SliceScatter UnsafeIndex
"""
_LAYER_NAMES = """
    Convolution ConvolutionOverrideable CudnnConvolution MiopenConvolution MkldnnConvolution Addmm Mm Bmm
    Baddbmm Mv Addmv Dot Linear MkldnnLinear ScaledDotProductFlashAttention
    ScaledDotProductCudnnAttention ScaledDotProductEfficientAttention
    ScaledDotProductFlashAttentionForCpu Matmul Addbmm SlowConv2D SlowConvDilated2D SlowConvTranspose2D
    ConvDepthwise2D CudnnConvolutionTranspose MiopenConvolutionTranspose MiopenDepthwiseConvolution
    NnpackSpatialConvolution MpsConvolution MpsConvolutionTranspose
    ScaledDotProductFusedAttentionOverrideable
"""
_OTHER_NAMES = """
    NativeBatchNorm CudnnBatchNorm MiopenBatchNorm NativeLayerNorm NativeGroupNorm FusedRmsNorm Softmax
    LogSoftmax MaxPool2DWithIndices MaxPool3DWithIndices MkldnnMaxPool2D MaxUnpool2D AvgPool2D AvgPool3D
    AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D AdaptiveMaxPool2D GridSampler2D
    CudnnGridSampler UpsampleNearest2D UpsampleNearestExact2D UpsampleBilinear2D UpsampleBilinear2DAa
    UpsampleBicubic2D UpsampleBicubic2DAa ReflectionPad2D ReplicationPad2D Max Amax Min Amin Logsumexp
    Prod Var VarMean Std StdMean Norm LinalgVectorNorm Median Sort Topk Cummax SafeSoftmax MaxPool2D
    AdaptiveMaxPool3D BatchNormWithUpdate NativeBatchNormLegit NativeBatchNormLegitNoTraining
"""
_REDUCING_NAMES = "Mean Sum Amax Max Prod Var VarMean Std Norm LinalgVectorNorm Logsumexp"
_PRODUCT_NAMES = "Mul Div Pow Maximum Minimum Fmax Fmin Where Lerp Addcmul Addcdiv Atan2 Hypot"
_LAYERS = frozenset(_LAYER_NAMES.split())
_MIXING = _LAYERS | frozenset(_OTHER_NAMES.split())
_PLAIN = _MIXING | frozenset(_LINEAR_NAMES.split())
_REDUCING, _PRODUCTS = frozenset(_REDUCING_NAMES.split()), frozenset(_PRODUCT_NAMES.split())

NAMES: Mapping[str, str] = MappingProxyType(
    {  # autograd's name -> the activation it is the derivative of
        "Gelu": "GELU",
        "Silu": "SiLU",
        "Mish": "Mish",
        "Elu": "ELU or SELU",
        "Celu": "CELU",
        "LeakyRelu": "leaky ReLU",
        "RreluWithNoise": "randomised leaky ReLU",
        "PreluKernel": "PReLU",
        "Softplus": "softplus",
        "LogSigmoid": "log sigmoid",
        "Hardswish": "hard swish",
        "Hardshrink": "hard shrinkage",
        "Softshrink": "soft shrinkage",
        "Glu": "GLU",
        "Sigmoid": "sigmoid",
        "Tanh": "tanh",
        "Hardsigmoid": "hard sigmoid",
        "Erf": "erf",
        "Hardtanh": "hard tanh",
        "Clamp": "clamp() with bounds other than 0",
        "ClampMin": "clamp() with bounds other than 0",
        "ClampMax": "clamp() with bounds other than 0",
    }
)


def name_of(node: Any) -> str:
    """Return what a node is the derivative of, as autograd names it: "Relu" of "ReluBackward0"."""
    name = node.name().rpartition("::")[2]
    return name.rstrip("0123456789").removesuffix("Backward") if name[-1:].isdigit() else name


class Watch(TorchFunctionMode):
    """Sees what is made of a picture, and finds where the picture chooses without a gradient to tell of it.

    Nodes are held, and so the graph, until the watch is let go. Threads of a guest's own are not seen.
    """

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.rectified: dict[Any, tuple[int, Tensor]] = {}
        """Nodes that were found to be max(x, 0): which of their inputs is x, and x."""
        self.choices: dict[Any, str] = {}
        """Nodes that choose in another way, and the operation's name."""
        self._of_it = WeakIdKeyDictionary({picture: True})

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        of_it = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t in self._of_it]
        if not of_it:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        live = [t for t in of_it if t.requires_grad]
        asked = live and ("threshold" in name or any(_chooses(t, x, name) for t in of_it for x in live))
        before = [t.detach().clone() for t in live] if asked else []  # for it may be overwritten
        answer = func(*args, **kwargs)
        made = [t for t in tree_leaves(answer) if isinstance(t, Tensor)]
        if answer is None and isinstance(args[0], Tensor):  # x[mask] = 0
            made = [args[0]]
        if not _of_its_form(name, args, of_it):
            for t in made:
                self._of_it[t] = True
        if before and made:
            self._judge(made[0], before, name)
        return answer

    def _judge(self, made: Tensor, before: list[Tensor], name: str) -> None:
        node = made.grad_fn
        if node is None:
            return
        places = [n for n, (source, _) in enumerate(node.next_functions) if source is not None]
        for x in before:
            if len(places) == 1 and x.shape == made.shape and torch.equal(made.detach(), x.clamp(min=0)):
                self.rectified[node] = places[0], x
                return
        self.choices[node] = name.strip("_")


def _of_its_form(name: str, args: Any, of_it: list[Tensor]) -> bool:
    """Tell whether an operation takes of the picture no more than size, type or device."""
    if name.endswith("_like") or name.startswith("new_"):
        return True
    likened = name in ("to", "type_as", "expand_as", "view_as", "reshape_as")
    return likened and not any(args[0] is t for t in of_it)


def _chooses(hidden: Tensor, x: Tensor, name: str) -> bool:
    """Tell whether something without a gradient may choose among each of the numbers of x.

    Whole numbers say where, as those of a pooling do, unless they are multiplied with.
    """
    if hidden.requires_grad or hidden.numel() != x.numel():
        return False
    return hidden.dtype == torch.bool or hidden.is_floating_point() or "mul" in name


class Way:
    """The nodes between an answer and a picture, each with those that it reads, and those that read it."""

    def __init__(self, answer: Tensor, picture: Tensor) -> None:
        every = list(_graph(answer))
        keep = _towards(every, picture)
        self.top = answer.grad_fn
        self.nodes = [node for node in every if node in keep]
        self.reads: dict[Any, list[tuple[Any, int]]] = {}
        self.read_by: dict[Any, list[tuple[Any, int]]] = {}
        for node in self.nodes:
            edges = enumerate(node.next_functions)
            self.reads[node] = [(s, place) for place, (s, _) in edges if s is not None and s in keep]
            for source, place in self.reads[node]:
                self.read_by.setdefault(source, []).append((node, place))

    def activations(self, known: Mapping[Any, Any]) -> Iterator[tuple[Any, str, bool]]:
        """Yield what is an activation and not known already: its node, its name, and whether it only weighs.

        What only weighs is smaller than what it is multiplied with, or divides it, or is the answer itself:
        a gate, or a part of a normalisation.
        """
        for node in self.nodes:
            name, edges = name_of(node), self.reads[node]
            if node in known or not edges:
                continue
            source, place = edges[0]
            if name == "Glu":
                yield node, NAMES[name], False
            elif len(edges) > 1 and name in _PRODUCTS:
                origins = [self._origins(source) for source, _ in edges]
                if any(a & b for n, a in enumerate(origins) for b in origins[:n]):
                    yield node, self._spelt(node), self._weighs(node, equal=False)
            elif len(edges) == 1 and name not in _PLAIN and _size(node) == _size(source, node, place):
                yield node, NAMES.get(name, f"{name.lower()}()"), self._weighs(node, equal=True)

    def _origins(self, node: Any) -> set[Any]:
        """Return what a node comes of number by number, down to the first layer that mixes them."""
        found, left = set(), [node]
        while left:
            node = left.pop()
            if node in found:
                continue
            found.add(node)
            if name_of(node) not in _MIXING:
                left += [s for s, place in self.reads[node] if _size(s, node, place) == _size(node)]
        return found

    def _spelt(self, node: Any) -> str:
        """Return the names of what an activation written by hand is made of."""
        inner = {name_of(n) for source, _ in self.reads[node] for n in self._origins(source)}
        names = sorted(NAMES[name] for name in inner & NAMES.keys())
        return f"an activation of its own ({', '.join(names or [name_of(node).lower()])})"

    def _weighs(self, node: Any, *, equal: bool) -> bool:
        """Tell whether all that comes of a node weighs something else; equal: even of its own size."""
        left, met = [(node, False)], set()
        while left:
            at, reduced = left.pop()
            if (at, reduced) in met:
                continue
            met.add((at, reduced))
            if at is self.top and reduced:
                return False
            for reader, place in self.read_by.get(at, []):
                name = name_of(reader)
                if name in _LAYERS:
                    return False
                if name not in ("Mul", "Div") or len(self.reads[reader]) == 1:
                    left.append((reader, reduced or name in _REDUCING or "Pool" in name))
                elif not (name == "Div" and place == 1) and not _lighter(reader, place, equal):
                    return False
        return True


def _lighter(product: Any, place: int, equal: bool) -> bool:
    """Tell whether a factor of a product is smaller than the other, or at most equal: both are kept."""
    factors = (product._saved_self, product._saved_other)
    if any(factor is None for factor in factors):
        return False
    mine, other = (factors[which].numel() for which in (place, 1 - place))
    return mine < other or (equal and mine == other)


def _size(node: Any, reader: Any = None, place: int = 0) -> tuple[int, ...] | None:
    """Return the shape of what a node answered; of what its reader reads, where it answered several."""
    which = 0 if reader is None else reader.next_functions[place][1]
    shapes = node._input_metadata
    return tuple(shapes[which].shape) if which < len(shapes) else None


def _graph(answer: Tensor) -> Iterator[Any]:
    """Yield every node of the graph that an answer hangs on, each once."""
    left = [answer.grad_fn]
    met = {answer.grad_fn}
    while left:
        node = left.pop()
        if node is None:
            continue
        yield node
        for before, _ in node.next_functions:
            if before not in met:
                met.add(before)
                left.append(before)


def _towards(nodes: list[Any], picture: Tensor) -> set[Any]:
    """Return those of the nodes from which a way leads to the picture."""
    readers: dict[Any, list[Any]] = {}
    for node in nodes:
        for source, _ in node.next_functions:
            readers.setdefault(source, []).append(node)
    left = [node for node in nodes if getattr(node, "variable", None) is picture]
    found = set(left)
    while left:
        for reader in readers.get(left.pop(), []):
            if reader not in found:
                found.add(reader)
                left.append(reader)
    return found
