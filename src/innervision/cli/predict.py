"""innervision predict: what a trained network takes pictures for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import telling, telling_options
from innervision.cli.using import bad_option, classifier_options, open_classifier

if TYPE_CHECKING:
    from innervision.learn.predict import Prediction

_SOME = (".jpg", ".png", ".webp")  # of the suffixes that a folder is searched for


@click.command()
@click.argument("pictures", metavar="IMAGES...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="classes shown of each")
@click.option(
    "--size", type=click.IntRange(1), help="side in pixels a picture is brought to [default: the network's]"
)
@click.option(
    "--views",
    type=click.Choice(["1", "2", "6"]),
    default="1",
    show_default=True,
    help="take the mean over 2 (mirrored) or 6 views (shifted too)",
)
@click.option("--batch", type=click.IntRange(1), default=64, show_default=True, help="pictures at once")
@bad_option("a picture that cannot be read")
@classifier_options(default=True)
@telling_options
@click.pass_context
def predict(
    ctx: click.Context,
    pictures: tuple[str, ...],
    top: int,
    size: int | None,
    views: str,
    batch: int,
    bad: Any,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Tell what a trained network takes pictures for: classes with probabilities.

    IMAGES are files, or folders with pictures in them, at any depth. A picture is prepared exactly as in the
    network's validation: its middle square, at the network's size. Where training found a temperature,
    probabilities are calibrated by it. "-" reads a picture from standard input. Exit code 1 if a picture was
    skipped.
    """
    from innervision.learn.predict import predict as work_on

    pictures = each(pictures)
    network, temperature = open_classifier(chosen)
    options = {"top": top, "size": size, "views": int(views), "batch": batch, "bad": bad}
    found: list[Prediction] = []
    with telling(quiet=quiet, as_json=as_json) as told:
        for one in work_on(network, pictures, temperature=temperature or 1.0, **options):
            found.append(one)
            told.step(len(found), len(pictures), one.name)
        skipped = [one for one in found if one.error]
        told.end(
            told_of(network.name, temperature, len(skipped)),
            network=network.name,
            temperature=temperature,
            predictions=[one.record() for one in found],
        )
    if not quiet and not as_json:
        click.echo("\n\n".join(lines(one) for one in found))
    if skipped:
        ctx.exit(1)


def each(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the pictures that are meant: of a folder, all that lie in it, in the order of their names."""
    from innervision.errors import Invalid
    from innervision.learn.folders import pictures_in

    found: list[str] = []
    for one in given:
        own = [one]
        if Path(one).is_dir():
            own = [str(path) for path in pictures_in(Path(one))]
            if not own:
                raise Invalid(
                    f"no picture lies in the folder '{one}': name one with {', '.join(_SOME)} files"
                )
        found += own
    return tuple(found)


def told_of(network: str, temperature: float | None, skipped: int) -> str:
    """Say what predicted, and how its probabilities are to be taken."""
    from innervision.learn.calibrate import remark

    how = "as the network gives them"
    if temperature is not None:
        how = f"calibrated, temperature {temperature:.3g}"
        how += f" ({found})" if (found := remark(temperature)) else ""
    left = f"; {skipped} pictures skipped" if skipped > 1 else "; 1 picture skipped" if skipped else ""
    return f"{network}: probabilities {how}{left}"


def lines(one: Prediction) -> str:
    """Return a prediction for a person, a class a line."""
    from innervision.learn.pictures import percent

    if one.error:
        return f"{one.name}\n  skipped: {one.error}"
    rows = zip(one.classes, one.probabilities, strict=True)
    note = f"  ({one.note})" if one.note else ""
    return "\n".join([one.name + note, *(f"{percent(p):>9}  {name}" for name, p in rows)])
