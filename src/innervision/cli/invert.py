"""innervision invert: how much of a picture each layer of a network keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import Plan, dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.seeing import (
    file_of,
    fingerprint,
    leave_card,
    limit_option,
    network_options,
    open_network,
    open_picture,
    precision_option,
    snapshots_option,
    stem,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.network import Network

_EVERY = 10  # steps between snapshots
NUMBERS = "inversion.json"
"""What was measured, and under which options: by it a later run knows what is done already."""


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option(
    "--layers",
    help="names with commas between, or all [default: every ReLU before the classifier; where there is none, "
    "every other nonlinearity]",
)
@click.option(
    "--steps",
    type=int,
    default=80,
    show_default=True,
    help="looks that the search takes for a layer (evaluations of L-BFGS)",
)
@click.option(
    "--norm",
    type=float,
    default=1e-8,
    show_default=True,
    help="how much pixels are kept from extremes: weight of their sixth power",
)
@click.option(
    "--variation",
    type=float,
    default=2e-6,
    show_default=True,
    help="how much pixels are kept like their neighbours: weight of the differences",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="of the noise that each layer begins from"
)
@click.option(
    "--size",
    type=int,
    default=224,
    show_default=True,
    help="longest side of the picture, in pixels",
)
@precision_option(
    "of the search (bfloat16 where the processor has it); what is measured is measured in float32"
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="a folder [default: NAME-inversion]")
@snapshots_option(_EVERY)
@dry_run_option
@limit_option
@network_options
@telling_options
@click.pass_context
def invert(
    ctx: click.Context,
    source: str,
    layers: str | None,
    output: Path | None,
    run: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Show how much of IMAGE each layer of a network keeps: a picture that it cannot tell from IMAGE.

    IMAGE is a file or sample:NAME. Leaves a folder with each layer's picture, a sheet of all, their error and
    SSIM as a curve over depth and as JSON. Ctrl-C keeps the layers that are done; run again with the same
    options it makes only what is missing.
    """
    from innervision import images
    from innervision.machine import choose_precision
    from innervision.see import invert as inversion

    folder = output or Path(f"{stem(source)}-inversion")
    images.writable(folder / "sheet.png")
    with telling(quiet=quiet, as_json=as_json) as told:
        network = open_network(chosen)
        search = network.frozen(choose_precision(chosen["precision"], network.device))
        _, image = open_picture(source, chosen["size"], chosen["max_pixels"])
        image = image.to(network.device)
        names = choose_layers(layers, network)
        options = settings(chosen, image, str(search.dtype).removeprefix("torch."), network)
        done = finished(folder, options)
        left = [name for name in names if name not in done]
        for name in left:  # what cannot be inverted is told before the work
            inversion.goal(search, image, name)
        snapshots = None if run is None else run / "snapshots"
        if dry_run:
            foretold = plan(search, image, names, left, chosen, folder).writing(snapshots)
            foretell(foretold, as_json=as_json)
            return
        if len(left) < len(names):
            told.say(f"{len(names) - len(left)} of {len(names)} layers are there already, in {folder}")
        steps, whole = chosen["steps"], True
        try:
            for number, name in enumerate(left):
                found = image
                each = inversion.inverting(
                    search,
                    image,
                    name,
                    steps=steps,
                    norm=chosen["norm"],
                    variation=chosen["variation"],
                    seed=chosen["seed"],
                )
                for frame in each:
                    found = frame.image
                    text = f"{name}, step {frame.step} of {steps}"
                    told.step(number * steps + frame.step, len(left) * steps, text, total=frame.total)
                    if snapshots is not None and frame.step % _EVERY == 0:
                        count = names.index(name) * steps + frame.step  # the same when it is gone on with
                        images.write(found.cpu(), snapshots / f"{count:04d}.png")
                result = inversion.judged(network, image, name, found)
                images.write(result.image, _picture(folder, name))
                done[name] = result.numbers()
                keep(folder, options, done)
        except KeyboardInterrupt:
            whole = False
        rows = [done[name] for name in names if name in done]
        if rows:
            draw(folder, image, rows, f"What the layers of {network.name} keep")
            leave_card(
                "invert", folder, {**chosen, "layers": names}, {"picture": source}, seed=chosen["seed"]
            )
        what = "Written" if whole else "Stopped, and can be gone on with by the same command"
        said = "\n".join([*map(line, rows), f"{what}: {folder}"])
        told.end(said, output=str(folder), finished=whole, layers=rows)
    if not whole:
        ctx.exit(130)


def choose_layers(asked: str | None, network: Network) -> tuple[str, ...]:
    """Return the layers to invert: those named, all, or the usual."""
    from innervision.see.invert import every_layer, wanted

    if asked == "all":
        return wanted(network, every_layer(network))
    names = wanted(network, None if asked is None else [name.strip() for name in asked.split(",")])
    return tuple(sorted(names, key=network.layers.index))  # the curve is over depth


def plan(
    network: Network,
    image: Tensor,
    names: Sequence[str],
    left: Sequence[str],
    chosen: Mapping[str, Any],
    folder: Path,
) -> Plan:
    """Return what is about to be done, its seconds from a few steps of the shallowest and the deepest."""
    from innervision.cli import beforehand
    from innervision.cli.foretold import depths_of
    from innervision.see.invert import inverting

    files = (*(str(_picture(folder, name)) for name in left), f"{folder}/")
    seconds, height, width = 0.0, *image.shape[-2:]
    if left:
        shares, _ = depths_of(network, image, tuple(left))
        tried = [
            (shares[name], beforehand.pace(inverting(network, image, name, steps=chosen["steps"])))
            for name in dict.fromkeys((left[0], left[-1]))
        ]
        each = [beforehand.between(tried[0], tried[-1], shares[name]) for name in left]
        seconds = chosen["steps"] * sum(each)
    done = len(names) - len(left)
    there = f" ({done} of {len(names)} layers are there already)" if done else ""
    lines = (
        f"what of the picture is kept by {beforehand.names(left) or 'no other layer'}{there}",
        f"{width}x{height} px, {chosen['steps']} steps each, {beforehand.about(network)}",
    )
    return Plan(lines, seconds, files, **beforehand.memory(network.device))


def settings(chosen: Mapping[str, Any], image: Tensor, precision: str, network: Network) -> dict[str, Any]:
    """Return all that an inversion depends on but its layer: what differs is made anew."""
    import hashlib

    import torch

    weights = hashlib.sha256()
    with torch.no_grad():
        for name, tensor in network.module.state_dict().items():
            weights.update(f"{name} {tuple(tensor.shape)} {tensor.double().sum().item():.9g}".encode())
    return {
        "net": network.name,
        "weights": weights.hexdigest()[:16],
        "preprocessing": str(network.preprocessing),
        "picture": fingerprint(image),
        "precision": precision,
        **{name: chosen[name] for name in ("steps", "norm", "variation", "seed")},
    }


def finished(folder: Path, options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the layers that lie in a folder, made with these options, and their numbers."""
    try:
        kept = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        if kept["options"] != options:
            return {}
        return {row["layer"]: row for row in kept["layers"] if _picture(folder, row["layer"]).is_file()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # nothing there, or nothing that can be gone on with


def _picture(folder: Path, layer: str) -> Path:
    """Return where a layer's picture is kept."""
    return folder / f"{file_of(layer)}.png"


def keep(folder: Path, options: Mapping[str, Any], done: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what was measured so far."""
    from innervision.files import atomic

    with atomic(folder / NUMBERS) as draft:
        text = json.dumps({"options": options, "layers": list(done.values())}, indent=2)
        draft.write_text(text + "\n", encoding="utf-8")


def draw(folder: Path, image: Tensor, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Draw the sheet and the curve from what lies in the folder."""
    from PIL import Image

    from innervision import images
    from innervision.see.invert import curve
    from innervision.sheets import sheet

    tiles: list[Tensor | Image.Image] = [image.cpu()]
    for row in rows:
        with Image.open(_picture(folder, row["layer"])) as file:
            tiles.append(file.convert("RGB"))
    labels = [
        "the picture",
        *(f"{row['layer']}\nerror {_short(row['error'])}, SSIM {row['ssim']:.2f}" for row in rows),
    ]
    images.write(sheet(tiles, labels=labels, title=title, smooth=True), folder / "sheet.png")
    images.write(curve(rows, title=title), folder / "curve.png")


def line(row: Mapping[str, Any]) -> str:
    """Return a layer's numbers as a person reads them."""
    near = "the same" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
    return f"{row['layer']:<12} error {_short(row['error']):<8} SSIM {row['ssim']:.3f}   PSNR {near}"


def _short(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}"
