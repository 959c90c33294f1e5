"""Flags that several commands share."""

import math
import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from orchestrator.settings import EXECUTORS, Executor

if TYPE_CHECKING:
    from orchestrator.manifest.selection import Selection
    from ship.data import DataSource

__all__ = [
    "author_options",
    "endpoint_options",
    "force_option",
    "image_size_option",
    "json_option",
    "read_share",
    "read_source",
    "request_options",
    "selection_options",
]

image_size_option = click.option(
    "--image-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Height and width of the backbone's input, as in a manifest; its own if left out.",
)
force_option = click.option(
    "--force", is_flag=True, help="Take it although the gate refused it; with --reason."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def author_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say who makes a change, and why; they arrive as one ``Author``."""

    @click.option("--reason", metavar="TEXT", help="Why; kept with the change and in the audit log.")
    @click.option(
        "--as", "person", metavar="NAME", help="Who makes the change, where people share a user [the user]."
    )
    @wraps(command)
    def with_author(*args: Any, reason: str | None, person: str | None, **options: Any) -> None:
        from orchestrator.store.documents.audit import Author

        if options.get("force") and not (reason or "").strip():
            raise click.UsageError("--force needs --reason TEXT: say why it is taken all the same")
        command(*args, author=Author.of_process(reason or "", person), **options)

    return with_author


def read_source(text: str, name: str, **defaults: Any) -> "DataSource":
    """The data of a path, or of a JSON mapping as a task's `data` in a manifest.

    Args:
        text: The path or the mapping.
        name: Name of the argument, for messages.
        **defaults: Settings where the mapping has none.

    Raises:
        ConfigError: A setting is unknown or out of range.
        ArtifactError: It begins as a mapping and is none.
    """
    from ship.artifact.card import parse_json
    from ship.data import DataSource

    values = parse_json(text.encode(), name) if text.lstrip().startswith("{") else {"path": text}
    return DataSource.from_dict({**defaults, **values})


def endpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which endpoint is asked, and for which version."""
    url = click.option(
        "--url",
        default=lambda: os.environ.get("SHIP_URL", "http://127.0.0.1:8000"),
        show_default="$SHIP_URL, else http://127.0.0.1:8000",
        help="URL of the endpoint.",
    )
    version = click.option(
        "--version", type=click.IntRange(min=1), help="Version that must answer [the one that is served]."
    )
    return url(version(command))


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which tasks of a manifest are meant; they arrive as one ``Selection``."""

    @click.option("--only", multiple=True, metavar="NAME", help="Take this task, or a pattern; repeatable.")
    @click.option(
        "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Take tasks with this tag; repeatable."
    )
    @wraps(command)
    def with_selection(*args: Any, only: tuple[str, ...], tags: tuple[str, ...], **options: Any) -> None:
        from orchestrator.manifest.selection import Selection

        command(*args, selection=Selection.from_flags(only, tags), **options)

    return with_selection


_REQUEST_FLAGS = (
    click.option(
        "--max-tasks",
        type=click.IntRange(min=1),
        help="Refuse to tune more tasks than this [manifest's, else 1000].",
    ),
    click.option("--keep-going", is_flag=True, help="Refuse tasks with problems alone; tune the others."),
    click.option(
        "--workers", type=click.IntRange(min=1), help="Most workers to use [one a GPU, else one a CPU]."
    ),
    click.option(
        "--min-workers", type=click.IntRange(min=1), help="Wait until there is room for so many workers [1]."
    ),
    click.option(
        "--pack",
        type=click.IntRange(min=1),
        help="Most tasks that a worker tunes side by side [as many as fit its memory and pay].",
    ),
    click.option(
        "--executor",
        type=click.Choice(EXECUTORS),
        help="Ray Train, or plain actors, where the death of one worker harms no other [train].",
    ),
)


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say what is asked of a manifest; they arrive as one ``Request``."""

    @wraps(command)
    def with_request(
        *args: Any,
        selection: "Selection",
        max_tasks: int | None,
        keep_going: bool,
        workers: int | None,
        min_workers: int | None,
        pack: int | None,
        executor: Executor | None,
        **options: Any,
    ) -> None:
        from orchestrator.manifest.model import PoolSettings
        from orchestrator.manifest.request import Request

        if workers is not None and min_workers is not None and min_workers > workers:
            raise click.UsageError(f"--min-workers {min_workers} is more than --workers {workers}")
        pool = PoolSettings(min_workers=min_workers, max_workers=workers, executor=executor, max_fused=pack)
        request = Request(selection=selection, keep_going=keep_going, max_tasks=max_tasks, pool=pool)
        command(*args, request=request, **options)

    with_flags: Callable[..., None] = with_request
    for flag in reversed(_REQUEST_FLAGS):
        with_flags = flag(with_flags)
    return selection_options(with_flags)


def read_share(text: str, promote: str) -> float:
    """A share of the requests, 0 to below 1, from a percentage such as ``5%``.

    Args:
        text: As it was typed.
        promote: Command that gives a version all requests, for the message.

    Raises:
        click.BadParameter: It is no percentage, or all.
    """
    number = text.removesuffix("%")
    try:
        percent = float(number) if text.endswith("%") and number.isascii() else math.nan
    except ValueError:
        percent = math.nan
    if percent == 100.0:
        raise click.BadParameter(
            f"100% is no canary; `{promote}` gives a version all requests", param_hint="SHARE%"
        )
    if not 0.0 <= percent < 100.0:
        raise click.BadParameter(
            f"{text!r}: expected a percentage from 0% to below 100%, such as 5%", param_hint="SHARE%"
        )
    return percent / 100.0
