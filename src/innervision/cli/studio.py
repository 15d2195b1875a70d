"""innervision studio: the local web application."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.options import Several

if TYPE_CHECKING:
    from innervision.studio import Opening


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0: a free one")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="the address to answer at; one that others reach needs --token too",
)
@click.option("--token", help="what a browser must bring to be let in; it is asked for with ?token=…")
@click.option(
    "--net",
    "nets",
    multiple=True,
    help="a network by name, a trained network's folder, or FILE.py:FUNCTION; repeatable "
    "[default: vgg19, and the trained ones at hand]",
)
@click.option("--weights", help="of FILE.py:FUNCTION, or of the one --net: .safetensors, .pth, .h5 or .npz")
@click.option("--mean", type=Several(float), help="of its input, a number a channel")
@click.option("--std", type=Several(float), help="of its input, a number a channel")
@click.option("--range", "range_", type=float, help="what white is to it: 1 or 255")
@click.option("--order", type=click.Choice(["RGB", "BGR"]), help="of its channels")
@click.option(
    "--classes", type=click.Path(path_type=Path), help="a file with the names of its classes, one a line"
)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="where runs lie"
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps …")
@click.option("--threads", type=click.IntRange(1, 1024), help="processor threads [default: torch's choice]")
@click.option("--browser/--no-browser", default=True, help="open a browser [default: do]")
def studio(
    host: str,
    port: int,
    token: str | None,
    nets: tuple[str, ...],
    runs: Path,
    device: str,
    threads: int | None,
    browser: bool,
    **guest: Any,
) -> None:
    """Look into networks, train them and paint with them in the browser, live.

    The studio answers on this machine alone, at http://127.0.0.1:8765. Ctrl-C ends it: a job that is at
    work is stopped where it can be gone on with, and offered when the studio starts again. It needs an
    extra: pip install 'innervision[studio]'.
    """
    from innervision.errors import Invalid

    for needed in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(needed) is None:
            raise Invalid(f"the studio needs {needed}, which is not here: pip install 'innervision[studio]'")
    import uvicorn

    from innervision.studio import Settings, create_app, security
    from innervision.studio.serving import Server

    settings = Settings(
        host=host,
        token=token,
        networks=openings(nets, guest),
        runs=runs.absolute(),
        device=device,
        threads=threads,
        warm=True,
    )
    security.check(settings)  # before anyone could connect
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    try:
        app = create_app(replace(settings, port=port))
        address = _address(settings.host, port, token)
        built = (settings.static / "index.html").is_file()
        click.echo(
            f"innervision studio: {address}" + ("" if built else "  (its pages are not built: make studio)")
        )
        if browser and built:
            _open_later(address)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=2,  # pages that follow a job would hold it for ever
        )
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            Server(app, config, say=lambda text: click.echo(f"innervision studio: {text}", err=True)).run(
                sockets=[listening]
            )
    finally:
        listening.close()


def openings(nets: tuple[str, ...], guest: Mapping[str, Any]) -> tuple[Opening, ...]:
    """Return the networks meant; the options of a guest go to the one FILE.py:FUNCTION, or the one --net.

    Raises Invalid where they could be several's.
    """
    from innervision.cli.seeing import read_classes
    from innervision.errors import Invalid
    from innervision.studio import Opening

    options = {
        "weights_file": guest["weights"],
        "mean": guest["mean"],
        "std": guest["std"],
        "range": guest["range_"],
        "order": guest["order"],
    }
    options = {name: value for name, value in options.items() if value is not None}
    file = guest["classes"]
    classes = () if file is None else tuple(read_classes(file))
    nets = tuple(_lasting(name) for name in nets)
    if not options and not classes:
        return tuple(Opening(name=name) for name in nets)
    strangers = [name for name in nets if ".py:" in name]
    mine = strangers if len(strangers) == 1 else list(nets)
    if len(mine) != 1:
        raise Invalid(
            "--weights, --mean, --std, --range, --order and --classes are of one network: give one --net"
        )
    return tuple(
        Opening(
            name=name,
            options=options,
            classes=classes,
            classes_file=None if file is None else file.absolute(),
        )
        if name == mine[0]
        else Opening(name=name)
        for name in nets
    )


def _lasting(name: str) -> str:
    """Return a network's name so that it means the same elsewhere; raise Invalid where it means nothing."""
    from innervision import models, nets
    from innervision.errors import Invalid, unknown

    if name in nets.NETS or name in models.shipped():
        return name
    folder = models.find(name)
    if folder is not None:
        return str(folder.absolute())
    file, colon, function = name.rpartition(":")
    if not colon:
        raise unknown("net", name, (*nets.NETS, *models.shipped()))
    if not Path(file).is_file():
        raise Invalid(f"no file {file!r} in --net {name!r}: give FILE.py:FUNCTION")
    return f"{Path(file).absolute()}:{function}"


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that an address in use is told before anything else."""
    from innervision.errors import Invalid

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Invalid(
            f"cannot listen at {host}:{port}: {why}; choose another --port, or 0 for a free one"
        ) from error
    # asyncio sets it on its own sockets only; without it small answers wait 40 ms for a receipt
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _address(host: str, port: int, token: str | None) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def _open_later(address: str) -> None:
    """Open the browser once the server has had a moment to begin; the socket holds what comes before."""
    import threading
    import webbrowser

    timer = threading.Timer(0.5, lambda: webbrowser.open(address))
    timer.daemon = True
    timer.start()
