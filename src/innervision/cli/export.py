"""innervision export: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from innervision.cli.seeing import leave_card, open_network, telling, telling_options
from innervision.cli.using import classifier_options


@click.command()
@click.option(
    "--to",
    type=click.Choice(["onnx", "torchscript", "safetensors"]),
    help="the format [default: what the output's suffix says, else onnx]",
)
@click.option(
    "--input",
    "input_",
    type=click.Choice(["float", "uint8", "raw"]),
    default="float",
    show_default=True,
    help="the graph's: sRGB in 0..1, in 0..255, or already preprocessed",
)
@click.option(
    "--size",
    type=click.IntRange(1),
    help="side of a picture in pixels [default: the network's own, else 224]",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the file [default: NET.onnx and so on]"
)
@classifier_options(default=False)
@telling_options
def export(
    to: str | None,
    input_: Any,
    size: int | None,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write a trained network as ONNX, TorchScript or safetensors.

    The graph takes any number of pictures at once and does the preprocessing itself. Its answers are compared
    with the network's, and it is written only if none differs by more than 0.0001 (ONNX is run where
    onnxruntime is installed). Class names and preprocessing go along as metadata.
    """
    from innervision.learn.export import FORMATS
    from innervision.learn.export import export as write

    suffixes = {suffix: name for name, suffix in FORMATS.items()}
    kind = to or (suffixes.get(output.suffix.lower()) if output else None) or "onnx"
    network = open_network(chosen)
    where = output or Path(f"{Path(chosen['net']).name.partition(':')[0]}{FORMATS[kind]}")
    with telling(quiet=quiet, as_json=as_json) as told:
        made = write(network, where, to=kind, input=input_, size=size)
        leave_card("export", where, {**chosen, "to": kind, "input": input_, "size": size}, {})
        off = f", off by {made.difference:.1e} at most" if made.difference else ""
        told.end(
            f"{made.path}: {made.text}{off}",
            output=str(made.path),
            format=made.kind,
            difference=made.difference,
        )
