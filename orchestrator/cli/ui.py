"""The command `ship ui`: MLflow's own page on the registry of this home."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from orchestrator.cli.output import Output
from orchestrator.errors import RegistryError

__all__ = ["ui"]


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that the page listens on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Its port.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser, too.")
@click.pass_obj
def ui(output: Output, host: str, port: int, opens: bool) -> None:
    """Show MLflow's page: runs with their curves, figures and lineage, models, versions, tags.

    Of a tracking server (MLFLOW_TRACKING_URI=http...) it prints the address. Of a database or a file it runs
    MLflow's own server until Ctrl-C. That server asks for no password: what listens beyond this machine lets
    all read and change the registry.

    \b
    Examples:
      ship ui
      ship ui --port 5001 --open
    """
    from orchestrator.cluster.signals import interrupting_signals
    from orchestrator.registry.page import check_port, page_command, page_url, running_page

    settings, session = output.settings(), output.registry().session
    if session.is_server:
        _tell(output, page_url(session, session.where), opens)
        return
    session.check_exists()
    check_port(host, port)
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    url = page_url(session, base)
    command, environment = page_command(session, settings.artifact_location, host, port)
    with suppress(KeyboardInterrupt), interrupting_signals(), _hung_up_as_ended():
        with running_page(command, environment, f"{base}/health") as process:
            _tell(output, url, opens)
            output.err.print("Ctrl-C ends it.")
            process.wait()
        raise RegistryError(f"MLflow's server ended with status {process.returncode}")


@contextmanager
def _hung_up_as_ended() -> Iterator[None]:
    """A terminal that is closed ends the block as SIGTERM does."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _tell(output: Output, url: str, opens: bool) -> None:
    output.print_line(url)
    if opens:
        click.launch(url)
