"""The console command ``ship``: parses, calls, prints. Decides nothing.

Exit status: 0 done; 1 some tasks failed, or the registry refused; 2 bad input, nothing was written; 3 all
were tuned, but some wait and do not serve, or a promotion waits for an approval; 130 interrupted. With
``--json`` an error is JSON on standard output, too.

Heavy packages are imported by the command that needs them, so that ``ship --help`` answers at once.
"""

import contextlib
import errno
import io
import logging
import os
import sys
from typing import NoReturn

import click
from rich.console import Console

from orchestrator.cli import (
    ask,
    audit,
    backbone,
    backup,
    console,
    decisions,
    doctor,
    drift,
    exchange,
    gc,
    manifest,
    pictures,
    registry,
    review,
    runs,
    serve,
    token,
    ui,
)
from orchestrator.cli.output import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, Output
from orchestrator.errors import ManifestError, OrchestratorError
from ship.errors import ShipError
from ship.redaction import RedactingFormatter

__all__ = ["main"]

# What comes of a disk without room, or that fails, while something is printed into a file on it.
_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@click.option("--home", metavar="DIR", help="Folder for everything local [SHIP_HOME; default .ship].")
@click.option("--store", metavar="URL", help="Store of prompts, a path or s3://... [SHIP_STORE].")
@click.version_option(package_name="ship-prompts")
@click.pass_context
def cli(context: click.Context, home: str | None, store: str | None) -> None:
    """One frozen vision transformer, thousands of tasks.

    Tunes a small prompt per task on one frozen backbone, keeps the prompts in a store and a registry, and
    serves all of them from one endpoint.

    Completion of commands, options and names of tasks in the shell, for bash (zsh_source, fish_source):
    eval "$(_SHIP_COMPLETE=bash_source ship)"

    Environment: RAY_ADDRESS joins a cluster instead of starting a local Ray; MLFLOW_TRACKING_URI names a
    tracking server instead of sqlite in the home folder; AWS_* and AWS_ENDPOINT_URL as boto3 reads them.

    \b
    Examples:
      ship plan lines.yaml
      ship tune lines.yaml --workers 4
      ship ls
      ship serve --port 8000
    """
    output = context.ensure_object(Output)
    output.home, output.store = home, store


for command in (
    *manifest.COMMANDS,
    *runs.COMMANDS,
    *registry.COMMANDS,
    decisions.threshold,
    drift.drift,
    review.review,
    *audit.COMMANDS,
    *pictures.COMMANDS,
    *exchange.COMMANDS,
    ui.ui,
    console.console,
    backbone.backbone,
    serve.serve,
    *ask.COMMANDS,
    token.token,
    gc.gc,
    *backup.COMMANDS,
    doctor.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Entry point: errors that a user can fix are printed, not traced."""
    _take_any_name()
    errors, output = Console(stderr=True, highlight=False), Output()

    def end(error: BaseException, message: str, status: int) -> NoReturn:
        if "--json" in sys.argv[1:]:
            output.print_error(type(error).__name__, message, status)
        sys.exit(status)

    if logging.lastResort is not None:
        # What no handler takes, of libraries too, is printed by this one.
        logging.lastResort.setFormatter(RedactingFormatter("%(message)s"))
    try:
        cli(obj=output, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        end(error, error.format_message(), EXIT_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt) as error:
        errors.print("interrupted", style="yellow")
        end(error, "interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        if error.filename is None and error.errno not in _OF_OUTPUT:
            raise
        # A place of the user's that no part of the program has looked after: it says itself what is wrong.
        said = f"{error.filename or 'what is written or printed'}: {error.strerror}"
        if error.filename is None:
            _drop_output()
        errors.print("error:", style="bold red", end=" ")
        errors.print(said, markup=False, soft_wrap=True)
        end(error, said, EXIT_FAILED)
    except ShipError as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(str(error), markup=False, soft_wrap=True)
        is_late = isinstance(error, OrchestratorError) and not isinstance(error, ManifestError)
        end(error, str(error), EXIT_FAILED if is_late else EXIT_BAD_INPUT)


def _drop_output() -> None:
    """Let nothing that could not be printed be tried again at the end of the process."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _take_any_name() -> None:
    """Let the terminal show names of files that its encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
