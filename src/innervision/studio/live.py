"""A camera's frames through a network: raw pixels in, one layer's maps out, nothing kept."""

from __future__ import annotations

import json
import struct

import torch

from innervision.studio import looking
from innervision.studio.graph import Graph
from innervision.studio.looking import rounded, sprite
from innervision.studio.networks import Opened
from innervision.studio.problems import Refused, missing

SIZES = (8, 512)  # pixels a side
LIMIT = SIZES[1] ** 2 * 3


def check(graph: Graph, layer: str, size: int, length: int) -> None:
    """Raise Refused for a layer that cannot be shown, and for a size or length that is not taken."""
    if layer not in graph:
        raise missing("layer", layer)
    if not graph[layer].maps:
        raise Refused(409, f"{layer} answers {graph[layer].shape}, which are no maps")
    if graph.fits == "fixed" and size != graph.side:
        raise Refused(400, f"this network takes {graph.side} px only, not {size}")
    if size < graph.least:
        raise Refused(400, f"this network takes {graph.least} px and more, not {size}")
    if length != 3 * size * size:
        raise Refused(
            400, f"{length} bytes came; {size} x {size} pixels of red, green and blue are {3 * size * size}"
        )


def frame(opened: Opened, layer: str, size: int, data: bytes, cell: int) -> bytes:
    """Return a layer's answer to one frame: a header's length (4 bytes, little-endian), the header, the maps.

    data: RGB, row by row. The header is JSON: layer, channels, h, w, lo, hi, predictions; the maps are bytes
    as `looking.sprite` has them.
    """
    pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(size, size, 3)
    image = pixels.permute(2, 0, 1)[None].float().div_(255).to(opened.network.device)
    with torch.inference_mode(False), torch.no_grad():
        found, answer = looking.answers(opened.network, opened.graph, image, (layer,))
        answered = looking.maps(found[layer], (size, size))
        if answered is None:
            raise Refused(409, f"{layer} answers no maps to a picture of this size")
        seen = looking.seen(layer, opened.graph[layer].kind, answered)
        maps, (c, h, w) = sprite(seen, cell)
    head = {
        "layer": layer,
        "channels": c,
        "h": h,
        "w": w,
        "lo": rounded(seen.lo),
        "hi": rounded(seen.hi),
        "predictions": looking.predictions(opened.network, answer),
    }
    told = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return struct.pack("<I", len(told)) + told + maps
