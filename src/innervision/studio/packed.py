"""A look in one answer of bytes: what is told of each layer, and the small sprites of the layers in sight.

A page that shows many layers at once would else wait for a request each; decimal numbers would take three
times the bytes, and the browser longer to read than the network to look.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence

from innervision.studio.looking import Look, about, entry, sprite, sprite_size

ROOM = 2**20  # bytes of sprites in an answer; a layer that finds no room is asked for by itself


def packed(look: Look, names: Sequence[str], cell: int) -> bytes:
    """Return a header's length (4 bytes, little-endian), the header, each layer's numbers, then the sprites.

    The header is a look's JSON, but that `lo`, `hi` and `mean` follow it: float32, little-endian, layer by
    layer, a number a channel. A layer of `names` says as `sprite` which height and width its own has, as
    `looking.sprite` makes it, if the sprites so far leave it room; they come in the order of the layers.
    """
    chosen = _chosen(look, names, cell)
    numbers: list[bytes] = []
    sprites: list[bytes] = []
    layers = []
    for seen in look.layers.values():
        told = entry(look, seen)
        numbers += (each.astype("<f4").tobytes() for each in (seen.lo, seen.hi, seen.mean))
        if seen.name in chosen:
            data, (_, h, w) = sprite(seen, cell)
            told["sprite"] = [h, w]
            sprites.append(data)
        layers.append(told)
    head = json.dumps(about(look, layers), allow_nan=False, separators=(",", ":")).encode()
    return b"".join((struct.pack("<I", len(head)), head, *numbers, *sprites))


def _chosen(look: Look, names: Sequence[str], cell: int) -> set[str]:
    """Return the layers whose sprites find room, those named first before the others."""
    chosen: set[str] = set()
    room = ROOM
    for name in dict.fromkeys(names):
        seen = look.layers.get(name)  # none where it answers no maps to a picture of this size
        if seen is None:
            continue
        size = math.prod(sprite_size(seen, cell))
        if size <= room:
            chosen.add(name)
            room -= size
    return chosen
