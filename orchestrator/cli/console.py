"""The command `ship console`: web pages over registry, store, audit log and endpoint."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from orchestrator.cli.output import Output

__all__ = ["DEFAULT_PORT", "console", "console_beside"]

DEFAULT_PORT = 8080


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that it listens on.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="Its port."
)
@click.option(
    "--endpoint",
    metavar="URL",
    default=lambda: os.environ.get("SHIP_URL"),
    show_default="$SHIP_URL, else none",
    help="Endpoint whose state it shows, asked with the token in SHIP_TOKEN.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Answer by this host name, too, such as that of a proxy with TLS; repeatable.",
)
@click.option(
    "--compute",
    "computes",
    is_flag=True,
    help="Run prompts on this machine's CPU: for the nearest training pictures, and for attention maps "
    "without an endpoint.",
)
@click.option(
    "--backbone",
    metavar="NAME|FOLDER",
    help="Place of the backbone for --compute, if it is not where the artifacts say.",
)
@click.option(
    "--manifest",
    "-m",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Offer to tune a task of this manifest anew with the labels of Review.",
)
@click.option("--no-auth", is_flag=True, help="Let every user of this machine in, as admin; loopback only.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser, too.")
@click.pass_obj
def console(
    output: Output,
    host: str,
    port: int,
    endpoint: str | None,
    hosts: tuple[str, ...],
    computes: bool,
    backbone: str | None,
    manifest: str | None,
    no_auth: bool,
    opens: bool,
) -> None:
    """Show the fleet in a browser: what serves, what it gets wrong, who decided; and decide. Ctrl-C ends it.

    People sign in with a token of `ship token create NAME --predict PATTERN --console look|decide|admin`, and
    see the tasks that it may ask. It encrypts nothing: beyond this machine put a proxy with TLS in front.

    \b
    Examples:
      ship token create maria --predict '*' --console decide
      ship console
      ship console --endpoint http://127.0.0.1:8000 --port 8081
      ship console --allow-host console.plant.example
      ship console --manifest lines.yaml
      ship console --no-auth --open
    """
    from orchestrator.cluster.signals import interrupting_signals

    running = console_beside(
        output,
        host,
        port,
        endpoint,
        auth=not no_auth,
        hosts=hosts,
        computes=computes,
        backbone=backbone,
        manifest=manifest,
    )
    with suppress(KeyboardInterrupt), interrupting_signals(), running as url:
        if opens:
            click.launch(url)
        threading.Event().wait()


@contextmanager
def console_beside(
    output: Output,
    host: str,
    port: int,
    endpoint: str | None,
    *,
    auth: bool,
    hosts: tuple[str, ...] = (),
    computes: bool = False,
    backbone: str | None = None,
    manifest: str | None = None,
) -> Iterator[str]:
    """The console, from its first answer to the end of the block; says its address.

    Args:
        output: Where that is printed.
        host: Address that it listens on.
        port: Its port.
        endpoint: URL of the endpoint, if there is one.
        auth: Whether people sign in.
        hosts: Further names that it is reached by.
        computes: Whether it may run prompts on single pictures.
        backbone: Place of the backbone for that.
        manifest: Manifest with whose settings a person may tune a task anew.
    """
    from orchestrator.client import Client
    from orchestrator.console.server import can_sign_in, running_console
    from orchestrator.console.services import Services

    client = None if endpoint is None else Client(endpoint, timeout_s=5.0, patience_s=0.0)
    services = Services.open(
        output.settings(), client, computes=computes, backbone=backbone, manifest=manifest
    )
    with running_console(services, host, port, auth=auth, allowed_hosts=hosts) as url:
        output.out.print(f"Console at {url} (Ctrl-C ends it)", markup=False, soft_wrap=True)
        if auth and not can_sign_in(services):
            output.err.print(
                "No token has access to it yet: `ship token create NAME --predict '*' --console decide` "
                "makes one.",
                markup=False,
                soft_wrap=True,
            )
        yield url
