"""innervision find-lr: how great a learning rate may be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import leave_card, telling, telling_options
from innervision.cli.using import machine_options

if TYPE_CHECKING:
    from innervision.learn.finder import Trial


@click.command("find-lr")
@click.option("--recipe", "name", help="how it is to be trained [default: by the data]")
@click.option("--data", help="as for innervision train [default: the recipe's]")
@click.option("--net", help="another network: by name, or FILE.py:FUNCTION, as that function builds it")
@click.option("--start", help="weights to start from: by name, a file, or a run's folder; none for none")
@click.option("--size", type=click.IntRange(1), help="side of the pictures in pixels")
@click.option("--batch", type=click.IntRange(1), help="pictures a step")
@click.option("--micro", type=click.IntRange(1), help="pictures that go through the network at once")
@click.option(
    "--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="[default: the recipe's]"
)
@click.option("--from", "low", type=float, default=1e-6, show_default=True, help="the first rate")
@click.option("--to", "high", type=float, default=10.0, show_default=True, help="the last rate")
@click.option("--steps", type=click.IntRange(10), default=100, show_default=True, help="rates to try")
@machine_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("find-lr.png"),
    show_default=True,
    help="the curve",
)
@telling_options
@click.pass_context
def find_lr(
    ctx: click.Context,
    name: str | None,
    data: str | None,
    low: float,
    high: float,
    steps: int,
    output: Path,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Try learning rates from small to great in one short training, draw the loss, and suggest one.

    The network starts afresh and is thrown away. Ctrl-C ends the trial with what there is.
    """
    from innervision import images
    from innervision.cli.course import new_course, read
    from innervision.cli.train import typed, usual
    from innervision.errors import Invalid
    from innervision.learn import finder
    from innervision.machine import choose_device

    images.writable(output)
    course = new_course(name or usual(data), data, typed(ctx))
    trials: list[Trial] = []
    with telling(quiet=quiet, as_json=as_json) as told:
        work = finder.find_lr(
            course.recipe,
            read(course, "train", told),
            low=low,
            high=high,
            steps=steps,
            seed=chosen["seed"],
            device=str(choose_device(chosen["device"])),
            threads=chosen["threads"],
        )
        try:
            for trial in work:
                trials.append(trial)
                text = f"rate {trial.lr:.2g}, loss {trial.loss:.4g}"
                told.step(trial.count, trial.steps, text, lr=trial.lr, loss=trial.loss)
        except KeyboardInterrupt:
            work.close()
            if len(trials) < 3:
                raise
        found, why = None, ""
        try:
            found = finder.suggest(trials)
        except Invalid as error:
            why = str(error)
        if trials:
            images.write(finder.draw(trials, found), output)
            given = {**chosen, "recipe": course.recipe.name, "data": course.data, "from": low, "to": high}
            leave_card("find-lr", output, {**given, "steps": steps}, {}, seed=chosen["seed"])
        if found is None:
            raise Invalid(why)
        told.end(
            f"suggested: --lr {found.lr:.2g} (the loss falls fastest there; it was least at "
            f"{found.least:.2g}); {output}",
            output=str(output),
            lr=found.lr,
            least=found.least,
            tried=len(trials),
        )
