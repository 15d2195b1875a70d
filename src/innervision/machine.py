"""What is computed on: device, precision and threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from innervision.errors import Invalid


def choose_device(name: str) -> torch.device:
    """Return the device meant; "auto" is a GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros((), device=name).item()  # "meta" makes tensors, but computes nothing
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the network's precision; "auto" is bfloat16 where the processor computes in it.

    On a CPU that is AVX-512 BF16 or AMX: 1.6 to 2.2 times sooner an evaluation; elsewhere bfloat16 is
    emulated and slower. On a GPU, where CUDA says that it has it.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    gains = device.type == "cpu" and any(map(_processor_has, ("avx512_bf16", "amx_tile")))
    return torch.bfloat16 if gains else torch.float32


def _processor_has(feature: str) -> bool:
    # a name of torch's own, which older and newer ones may not have
    return bool(getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)())


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with so many processor threads, and give the caller's number back."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
