"""The command `ship serve`: starts an endpoint."""

import os
import re
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.console import DEFAULT_PORT, console_beside
from orchestrator.cli.options import image_size_option
from orchestrator.cli.output import Output
from orchestrator.errors import ServeError
from orchestrator.settings import BYTES_A_GB

if TYPE_CHECKING:
    from orchestrator.serve.options import Inside, ServeOptions
    from orchestrator.serve.scale import Scale

__all__ = ["serve"]

# RFC 6454, section 6.2, as browsers write it.
_ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="TCP port.")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("bundled",),
    show_default=True,
    help="Backbone that serves, as in a manifest; repeatable: each has engines of its own, and a task is "
    "answered by those of its backbone.",
)
@image_size_option
@click.option(
    "--engines",
    default="1",
    show_default=True,
    metavar="N|auto|auto:MIN-MAX",
    help="Engines of each backbone: a number, or as many as the load asks for, between two bounds or up to "
    "one a GPU (one a node without GPUs).",
)
@click.option("--replicas", hidden=True, help="Former name of --engines.")
@click.option(
    "--ingress",
    "ingresses",
    default="1",
    show_default=True,
    metavar="N|auto|auto:MIN-MAX|inside",
    help="Processes that read, decode and answer requests; `auto` keeps at least one for each node of a "
    "cluster; `inside` has one in the process of each engine, which takes least work for a request.",
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    help="Precision of the engines; auto is bfloat16 where the device multiplies in it, else float32.",
)
@click.option(
    "--log-requests",
    type=click.Path(dir_okay=False),
    help="Append a JSON line for each request to this file.",
)
@click.option(
    "--prompt-memory",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Device memory of each engine for prompts; the least recently used ones give way.",
)
@click.option(
    "--pin",
    "pinned",
    multiple=True,
    metavar="TASK",
    help="Keep the champion of this task, or pattern, in memory; repeatable.",
)
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Time limit of one request; clients may ask for a shorter one.",
)
@click.option(
    "--haproxy/--no-haproxy",
    default=None,
    help="Use HAProxy, which comes with Ray Serve on Linux, as ingress, or Ray Serve's slower proxy "
    "[default: HAProxy where it can be had].",
)
@click.option(
    "--token-grace",
    default=12 * 3600.0,
    show_default="12 hours",
    type=click.FloatRange(min=10.0),
    metavar="SECONDS",
    help="While tokens cannot be read from the store, those known stay valid for so long; then all requests "
    "are refused.",
)
@click.option("--no-auth", is_flag=True, help="Accept every request without a token.")
@click.option(
    "--cors",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://plant.example, read replies; repeatable. '*' is for "
    "all pages, and needs --no-auth.  [default: none]",
)
@click.option(
    "--keep",
    multiple=True,
    metavar="[TASK:]WHAT",
    help="Keep pictures in the store for `ship review`: any of unsure, far, sample=SHARE, or none, with "
    "commas between them, of all tasks or of one or a pattern; repeatable, the last one counts.  "
    "[default: none]",
)
@click.option(
    "--keep-pictures",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Most pictures that are kept of a task; the oldest go first.",
)
@click.option(
    "--keep-memory",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.001),
    metavar="GB",
    help="Most that they take, of each task.",
)
@click.option(
    "--keep-days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0.001),
    help="Days after which they are removed.",
)
@click.option(
    "--console",
    "console_port",
    is_flag=False,
    flag_value=DEFAULT_PORT,
    type=click.IntRange(1, 65535),
    metavar="[PORT]",
    help=f"Run `ship console` beside it at the same --host, on this port ({DEFAULT_PORT}); it ends with it.",
)
@click.option(
    "--name", help="Name of the endpoint on a Ray cluster that others use too [by default from the store]."
)
@click.option(
    "--detach", is_flag=True, help="Return once it answers; `ship serve --stop` ends it, from any terminal."
)
@click.option(
    "--stop",
    "is_stop",
    is_flag=True,
    help="Stop the endpoint of that name: a detached one, or one on the cluster at RAY_ADDRESS, such as one "
    "whose `ship serve` died.",
)
@click.pass_obj
def serve(
    output: Output,
    /,
    haproxy: bool | None,
    is_stop: bool,
    detach: bool,
    console_port: int | None,
    **flags: Any,
) -> None:
    """Answer for every task that has a champion, from its backbone. Ctrl-C drains and ends.

    A request names its task in the header Ship-Task, and carries a token of `ship token create`.

    \b
    Examples:
      ship serve
      ship serve --token-grace 3600
      ship serve --no-auth
      ship serve --console
      ship serve --cors https://plant.example
      ship serve --precision float32
      ship serve --keep unsure,far --keep 'line-1-*:unsure,sample=0.01'
      ship serve --engines 2 --prompt-memory 8 --pin 'line-1-*'
      ship serve --engines 2 --ingress inside
      ship serve --backbone bundled --backbone vit_base_patch16_224.augreg_in21k --ingress 2
      RAY_ADDRESS=ray-head:6379 ship serve --engines auto:1-8 --ingress auto
      ship serve --detach && ship serve --stop
      RAY_ADDRESS=ray-head:6379 ship serve --stop
      curl -H "Authorization: Bearer $SHIP_TOKEN" -H 'Ship-Task: bottle-caps' \\
        --data-binary @cap.png http://127.0.0.1:8000/v1/predict
    """
    from orchestrator.serve.launch.haproxy import haproxy_ingress

    settings = output.settings()
    if is_stop:
        from orchestrator.serve.launch.endpoint import stop

        output.out.print(f"Endpoint {stop(settings, flags['name'])} is stopped")
        return
    if detach:
        _check_detachable(haproxy=haproxy, console_port=console_port)
    if console_port is not None:
        from orchestrator.console.server import check_console

        check_console(flags["host"], console_port, auth=not flags["no_auth"])
    # Its files go with this process, which a detached endpoint outlives.
    with haproxy_ingress(settings.ray_address, haproxy=False if detach else haproxy), ExitStack() as beside:
        # Ray Serve, which is imported here, reads the environment of the line above.
        from orchestrator.serve.launch.endpoint import serve_forever

        def on_ready(url: str) -> None:
            output.out.print(f"Serving at {url} ({'`ship serve --stop`' if detach else 'Ctrl-C'} ends it)")
            if console_port is not None:
                console = console_beside(output, flags["host"], console_port, url, auth=not flags["no_auth"])
                beside.enter_context(console)

        serve_forever(
            settings, _read_options(max_pixels=settings.max_pixels, **flags), on_ready, detach=detach
        )


def _check_detachable(*, haproxy: bool | None, console_port: int | None) -> None:
    """Refuse what would end with this process, which --detach lets end at once."""
    if haproxy:
        raise click.UsageError(
            "--haproxy: its files go with this process; leave out --detach, or start Ray with "
            "RAY_SERVE_ENABLE_HA_PROXY=1 and set RAY_ADDRESS"
        )
    if console_port is not None:
        raise click.UsageError(
            "--console ends with this command, which --detach lets end at once: leave one of them out, and "
            "run `ship console --endpoint URL` beside the endpoint"
        )


def _read_options(
    *,
    max_pixels: int,
    host: str,
    port: int,
    backbones: tuple[str, ...],
    name: str | None,
    image_size: int | None,
    engines: str,
    replicas: str | None,
    ingresses: str,
    precision: str,
    log_requests: str | None,
    prompt_memory: float,
    pinned: tuple[str, ...],
    timeout: float,
    token_grace: float,
    no_auth: bool,
    cors_origins: tuple[str, ...],
    keep: tuple[str, ...],
    keep_pictures: int,
    keep_memory: float,
    keep_days: float,
) -> "ServeOptions":
    from orchestrator.serve.options import EngineOptions, Limits, ServeOptions
    from ship.backbone_spec import absolute

    _check_origins(cors_origins, no_auth=no_auth)
    _check_keep(keep)
    if twice := [spec for spec, number in Counter(backbones).items() if number > 1]:
        raise click.UsageError(f"--backbone: expected different backbones, found {twice[0]!r} twice")
    # Another process writes it, with a working folder of its own.
    request_log = None if log_requests is None else os.path.abspath(log_requests)
    return ServeOptions(
        host=host,
        port=port,
        name=name,
        auth=not no_auth,
        backbones=tuple(map(absolute, backbones)),
        image_size=image_size,
        engines=_read_scale("--engines", engines)
        if replicas is None
        else _read_scale("--replicas", replicas),
        ingresses=_read_ingresses(ingresses, num_backbones=len(backbones)),
        engine=EngineOptions(
            slot_bytes=round(prompt_memory * BYTES_A_GB), pinned=pinned, precision=precision
        ),
        limits=Limits(
            timeout_s=timeout,
            token_grace_s=token_grace,
            request_log=request_log,
            max_pixels=max_pixels,
            cors_origins=cors_origins,
            keep=keep,
            keep_pictures=keep_pictures,
            keep_bytes=round(keep_memory * BYTES_A_GB),
            keep_days=keep_days,
        ),
    )


def _read_scale(option: str, text: str) -> "Scale":
    from orchestrator.serve.scale import Scale

    try:
        return Scale.read(text)
    except ServeError as error:
        raise click.UsageError(f"{option}: {error}") from None


def _read_ingresses(text: str, *, num_backbones: int) -> "Scale | Inside":
    if text != "inside":
        return _read_scale("--ingress", text)
    if num_backbones > 1:
        raise click.UsageError(f"--ingress inside: expected one --backbone, found {num_backbones}")
    return "inside"


def _check_keep(keep: tuple[str, ...]) -> None:
    from orchestrator.serve.keep_rules import read_rules

    try:
        read_rules(keep)
    except ServeError as error:
        raise click.UsageError(f"--{error}") from None


def _check_origins(origins: tuple[str, ...], *, no_auth: bool) -> None:
    """Refuse what no browser sends as its Origin, and every page where tokens are asked for."""
    for origin in origins:
        if origin == "*" and not no_auth:
            raise click.UsageError(
                "--cors '*' lets every web page read replies, which needs --no-auth; with tokens name each "
                "origin, such as --cors https://plant.example"
            )
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise click.UsageError(
                f"--cors {origin!r} is no origin: expected a scheme, a host in lower case and, unless it is "
                "the scheme's own, a port, with nothing after them, such as https://plant.example:8443"
            )
