"""innervision activations: what every layer answers to a picture, a sheet a layer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.options import Several
from innervision.cli.seeing import (
    leave_card,
    limit_option,
    network_options,
    open_network,
    open_picture,
    telling,
    telling_options,
)
from innervision.cli.tables import table

if TYPE_CHECKING:
    from innervision.see.survey import Layer


class Count(click.ParamType):
    """A number, or "all"."""

    name = "number|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "all":
            return None
        try:
            count = int(value)
        except ValueError:
            count = 0
        if count < 1:
            self.fail(f"{value!r} is no number of channels: give 1 or more, or all", param, ctx)
        return count


@click.command()
@click.argument("image")
@click.option("--layers", type=Several(str), help="names with commas between [default: every ReLU]")
@click.option(
    "--scale",
    type=click.Choice(["channel", "shared", "centred"]),
    default="channel",
    show_default=True,
    help="of a sheet's colours: channel, each channel its own; shared, one for the layer; centred, one for "
    "the layer with 0 in the middle. The overview's rows have one each",
)
@click.option(
    "--channels",
    type=Count(),
    default="16",
    show_default=True,
    help="how many of a layer's channels its sheet shows, the strongest first",
)
@click.option("--raw", type=click.Path(path_type=Path), help="write the numbers too: .npz or .safetensors")
@click.option("--size", type=click.IntRange(1), default=224, show_default=True, help="longest side in pixels")
@limit_option
@network_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("out/activations"),
    show_default=True,
    help="folder for the sheets",
)
@telling_options
def activations(
    image: str, output: Path, raw: Path | None, quiet: bool, as_json: bool, **chosen: Any
) -> None:
    """Show what the layers of a network answer to IMAGE: a sheet a layer, an overview and an index.

    IMAGE is a file or sample:NAME. Prints each layer's shape, what its units see, and how many of its
    channels are dead (0 everywhere in this picture) or saturated (at the end of their range everywhere).
    """
    from innervision import images
    from innervision.files import atomic
    from innervision.see import survey
    from innervision.see.activations import overview, strongest

    images.writable(output / "overview.png")
    if raw is not None:
        survey.check_raw(raw)
        images.writable(raw, format="png")  # its folder
    with telling(quiet=quiet, as_json=as_json) as told:
        network = open_network(chosen)
        _, picture = open_picture(image, chosen["size"], chosen["max_pixels"])
        layers = survey.survey(network, picture, chosen["layers"])
        draw = partial(survey.layer_sheet, scale=chosen["scale"], channels=chosen["channels"])
        names = [f"{n:0{len(str(len(layers)))}}-{_safe(layer.name)}.png" for n, layer in enumerate(layers, 1)]
        with ThreadPoolExecutor(2) as pool:  # packing leaves Python to others
            pages = pool.map(lambda layer: survey.png(draw(layer)), layers)
            for done, (name, page) in enumerate(zip(names, pages, strict=True), 1):
                with atomic(output / name) as draft:
                    draft.write_bytes(page)
                told.step(done, len(layers), name)
        rows = [strongest(layer.name, layer.maps[None], 12) for layer in layers]
        images.write(overview(rows, picture), output / "overview.png")
        index = [_entry(layer, name) for layer, name in zip(layers, names, strict=True)]
        with atomic(output / "layers.json") as draft:
            draft.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if raw is not None:
            survey.save_raw(raw, layers)
        card = {"image": image, "raw": raw, **chosen}
        leave_card("activations", output, card, {"image": image})
        told.end(f"{len(layers)} sheets and overview.png in {output}", output=str(output), layers=index)
    if not (quiet or as_json):
        _print(layers)


def _safe(name: str) -> str:
    """Return a layer's name as a file may bear it."""
    return re.sub(r"[^\w.+-]", "_", name)


def _entry(layer: Layer, file: str) -> dict[str, Any]:
    seen = layer.field
    return {
        "layer": layer.name,
        "file": file,
        "shape": layer.shape,
        "size": seen and seen.size,
        "stride": seen and seen.stride,
        "start": seen and seen.start,
        "dead": layer.dead,
        "saturated": layer.saturated,
        "least": float(layer.maps.min()),
        "greatest": float(layer.maps.max()),
    }


def _print(layers: Sequence[Layer]) -> None:
    rows: list[list[str]] = []
    for layer in layers:
        seen = layer.field
        field = ("?", "?", "?") if seen is None else (_pair(seen.size), _pair(seen.stride), _pair(seen.start))
        saturated = "-" if layer.saturated is None else str(layer.saturated)
        rows.append([layer.name, "x".join(map(str, layer.shape)), *field, str(layer.dead), saturated])
    table(("layer", "shape", "receptive field", "stride", "start", "dead", "saturated"), rows)


def _pair(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"
