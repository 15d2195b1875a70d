"""innervision recipes: the ways to train that are known by name."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="write JSON to standard output")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes, or explain the one of this NAME with all its numbers."""
    from innervision.cli.tables import table
    from innervision.learn.recipes import RECIPES, explain, recipe, record

    chosen = list(RECIPES.values()) if name is None else [recipe(name)]
    if as_json:
        found = [{"text": one.text, "expects": one.expects, **record(one)} for one in chosen]
        click.echo(json.dumps(found if name is None else found[0], ensure_ascii=False))
        return
    if name is None:
        rows = [[one.name, one.net, one.data or "your own", f"{one.epochs:g}", one.expects] for one in chosen]
        table(("recipe", "net", "data", "epochs", "expects"), rows)
        return
    only = chosen[0]
    click.echo(only.name)
    click.echo(click.wrap_text(only.text, 100, "  ", "  "))
    rows = explain(only)
    width = max(len(what) for what, _ in rows)
    for what, how in rows:
        click.echo(f"  {what.ljust(width)}  {how}")
