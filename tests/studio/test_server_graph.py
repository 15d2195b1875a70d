"""The graph of a network against edges written by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import network
from innervision.errors import Invalid
from innervision.studio.graph import graph_of
from innervision.studio.looking import seen_at


def edges(module: nn.Module, **options: object) -> dict[str, list[str]]:
    graph = graph_of(network.wrap(module.eval(), **options).frozen())  # pyright: ignore[reportArgumentType]
    return {node.name: list(node.inputs) for node in graph.nodes}


def conv(inside: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(inside, out, 3, padding=1)


class Block(nn.Module):
    """A residual block as torchvision writes it: one ReLU, in place, that is called twice."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inside, out), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = conv(out, out), nn.BatchNorm2d(out)
        self.down = nn.Conv2d(inside, out, 1) if inside != out else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.down is not None:
            identity = self.down(x)
        y += identity
        return self.relu(y)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = conv(3, 4), nn.ReLU(inplace=True)
        self.body = nn.Sequential(Block(4, 4), Block(4, 6))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.act(self.stem(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


RESIDUAL = {
    "stem": [],
    "act": ["stem"],
    "body.0.conv1": ["act"],
    "body.0.bn1": ["body.0.conv1"],
    "body.0.relu": ["body.0.bn1"],
    "body.0.conv2": ["body.0.relu"],
    "body.0.bn2": ["body.0.conv2"],
    "body.0": ["act", "body.0.bn2"],
    "body.1.conv1": ["body.0"],
    "body.1.bn1": ["body.1.conv1"],
    "body.1.relu": ["body.1.bn1"],
    "body.1.conv2": ["body.1.relu"],
    "body.1.bn2": ["body.1.conv2"],
    "body.1.down": ["body.0"],
    "body.1": ["body.1.bn2", "body.1.down"],
    "pool": ["body.1"],
    "fc": ["pool"],
}


def test_a_residual_network_has_the_edges_written_by_hand() -> None:
    found = edges(Residual(), input_size=16)
    assert found == RESIDUAL
    assert list(found)[:3] == ["stem", "act", "body.0.conv1"], "the first to answer comes first"


def test_what_is_told_of_layers() -> None:
    graph = graph_of(network.wrap(Residual().eval(), input_size=16).frozen())
    assert graph["stem"].shape == (4, 16, 16) and graph["fc"].shape == (5, 1, 1)
    assert graph["stem"].kind == "Conv2d" and graph["body.0"].kind == "Block"
    assert graph["stem"].parameters == 4 * 3 * 9 + 4
    assert graph["body.0"].parameters == 0, "those of a block are its layers'"
    assert sum(node.parameters for node in graph.nodes) == sum(p.numel() for p in Residual().parameters())
    seen = graph["body.0.conv2"].field
    assert seen is not None and seen.size == (7, 7)
    assert graph["fc"].field is None and graph["fc"].through
    assert (graph.output, graph.answers, graph.fits) == ("fc", (5,), "any")
    assert graph.shown == tuple(RESIDUAL)


class Branches(nn.Module):
    """Functions between layers, layers beside each other, and one that hands on what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 2), conv(3, 3), conv(5, 4)
        self.drop, self.same, self.last = nn.Dropout(), nn.Identity(), conv(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.relu(self.a(x)), torch.sigmoid(self.b(x))], 1)
        kept = both
        y = self.c(self.drop(both))
        return self.last(torch.cat([kept, self.same(y)], 1)) * 2


def test_functions_are_passed_through() -> None:
    graph = graph_of(network.wrap(Branches().eval(), input_size=8).frozen())
    assert {node.name: list(node.inputs) for node in graph.nodes} == {
        "a": [],
        "b": [],
        "drop": ["a", "b"],
        "c": ["drop"],
        "same": ["c"],
        "last": ["a", "b", "same"],  # not by way of drop, which hands on what others look at too
    }
    assert graph.output is None, "what is answered is twice the last layer's"


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.end = conv(3, 3), conv(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.shared(self.shared(x)))


def test_a_layer_called_twice_stands_for_its_first_call() -> None:
    assert edges(Twice(), input_size=8) == {"shared": [], "end": ["shared"]}


class Looking(nn.Module):
    """A module that decides by a value, which there is none of without numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 2), conv(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y) if float(y.sum()) < 1e9 else y


def test_a_module_that_looks_at_values_is_followed_with_numbers() -> None:
    assert edges(Looking(), input_size=8) == {"a": [], "b": ["a"]}


@pytest.mark.parametrize(
    ("module", "fits"),
    [
        (nn.Sequential(conv(3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)), "any"),
        (nn.Sequential(conv(3, 2), nn.Flatten(), nn.Linear(2 * 64, 3)), "fixed"),
    ],
)
def test_which_pictures_a_network_takes(module: nn.Module, fits: str) -> None:
    assert graph_of(network.wrap(module.eval(), input_size=8).frozen()).fits == fits


def test_the_least_size_is_found() -> None:
    module = nn.Sequential(*(layer for _ in range(5) for layer in (conv(3, 3), nn.MaxPool2d(2))))
    graph = graph_of(network.wrap(module.eval(), input_size=64).frozen())
    assert graph.least == 32, "halved five times"
    assert seen_at(graph, 300, 451, 32) == (32, 48) and seen_at(graph, 300, 451, 64) == (43, 64)


def test_the_size_is_found_where_it_is_not_told() -> None:
    module = nn.Sequential(conv(3, 2), nn.Flatten(), nn.Linear(2 * 28 * 28, 3))
    assert graph_of(network.wrap(module.eval()).frozen()).side == 28


def test_hooks_and_flags_are_given_back() -> None:
    module = Looking().train()
    own = network.wrap(module, input_size=8)
    graph_of(own)
    assert module.training and not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_module_without_layers_is_refused() -> None:
    with pytest.raises(Invalid, match="no layers"):
        graph_of(network.wrap(_Bare()))


class _Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x
