"""What a user's own network says when it fails: told as its own words, not as a failure of ours."""

from __future__ import annotations

from typing import Any

_CALLS = ("_call_impl", "_wrapped_call_impl")  # nn.Module.__call__, where a module's forward() is run
_LONGEST = 300  # letters of its words: torch may add a stack of its own


def fault(error: Exception) -> str | None:
    """Return one line on what a network said, and in which of its layers; None where it was none that failed.

    It is read off the traceback: who was called, from the network as a whole down to the layer that failed.
    """
    import torch
    from torch import nn

    from innervision.chain import Answers
    from innervision.network import Network

    network: Network | None = None
    called: list[nn.Module] = []
    picture: torch.Tensor | None = None
    trace, within = error.__traceback__, False
    while trace is not None:
        seen: dict[str, Any] = trace.tb_frame.f_locals
        who, what = seen.get("self"), trace.tb_frame.f_code.co_name
        looking = next(
            (n for n in (who, getattr(who, "network", 0), seen.get("network")) if isinstance(n, Network)),
            None,
        )
        if looking is not None:
            network, called = looking, []
        elif isinstance(who, Answers):  # the short way through a chain of convolutions, which calls no module
            within, picture = True, who._x
        elif isinstance(who, nn.Module) and what in _CALLS:
            if not called:
                picture = next((x for x in seen.get("args", ()) if isinstance(x, torch.Tensor)), None)
            if not called or called[-1] is not who:
                called.append(who)
        trace = trace.tb_next
    if not called and not within:
        return None
    name = network.name if network is not None else type(called[0]).__name__ if called else "the network"
    layers = called[0].named_modules() if called else ()
    layer = next((path for path, module in layers if module is called[-1]), "")
    where = f" in its layer {layer} ({type(called[-1]).__name__})" if layer else ""
    size = "" if picture is None else f" with an input of {'x'.join(map(str, picture.shape))}"
    words = " ".join(str(error).split()) or "nothing more"
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
    return (
        f"{name} fails{where}{size}: {type(error).__name__}: {words}. Look at --size, and whether --mean and "
        "--std have a number for each channel that it takes (--debug shows where)"
    )
