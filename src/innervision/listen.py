"""Listening in on any module by hooks: its layers' answers, in a pass that ends with the last one wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from innervision.errors import Invalid


class _Enough(BaseException):
    """Ends a forward pass once every wanted layer has answered; no guest's `except Exception` stops it."""


def listen(module: nn.Module, x: Tensor, wanted: tuple[str, ...], fragile: set[str]) -> dict[str, Tensor]:
    """Collect activations by hooks, and again with a copy of those that were overwritten (ReLU in place)."""
    while True:
        kept, versions = _once(module, x, wanted, fragile)
        missing = [name for name in wanted if name not in kept]
        if missing:
            raise Invalid(
                f"the forward pass never calls layer {missing[0]!r} as a module: take one within or after it"
            )
        spoiled = {name for name in wanted if kept[name]._version != versions[name]}
        if not spoiled:
            return kept
        fragile |= spoiled


def _once(
    module: nn.Module, x: Tensor, wanted: tuple[str, ...], fragile: set[str]
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Run the module with hooks that are gone afterwards, whatever happens."""
    kept: dict[str, Tensor] = {}
    versions: dict[str, int] = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
            if name in kept:
                return None  # a later call of the same module
            if not isinstance(output, Tensor):
                raise Invalid(
                    f"layer {name!r} answers {type(output).__name__}, no tensor: take one within or after it"
                )
            # A fragile answer is kept in a tensor of our own, on the way to what follows (so that a gradient
            # to it exists), and the pass goes on with a copy. No version tells of the guest's own inference
            # mode what is overwritten, and no gradient passes: a copy is kept, beside the way.
            aside = output.is_inference()
            with torch.inference_mode(False) if aside else contextlib.nullcontext():
                kept[name] = output.clone() if aside or name in fragile else output
            versions[name] = kept[name]._version
            if len(kept) == len(wanted):
                raise _Enough
            return kept[name].clone() if name in fragile and not aside else None

        return hook

    named = dict(module.named_modules(remove_duplicate=False))
    handles = [named[name].register_forward_hook(keep(name)) for name in wanted]
    try:
        with contextlib.suppress(_Enough), _uncompiled(module):
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return kept, versions


def _uncompiled(module: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Have what is compiled run as it was written: compiled before, it would not hear the hooks."""
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in module.modules())
    stance = getattr(torch.compiler, "set_stance", None)  # of torch 2.6
    return stance("force_eager") if compiled and stance else contextlib.nullcontext()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its parts into evaluation mode and give every train flag back."""
    with train_flags(module):
        module.eval()
        yield


@contextlib.contextmanager
def train_flags(module: nn.Module) -> Iterator[None]:
    """Give a module and each of its parts its own train flag back at the end."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training
