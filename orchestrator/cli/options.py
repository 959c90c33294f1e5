"""Flags that several commands share."""

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from orchestrator.settings import EXECUTORS, Executor

if TYPE_CHECKING:
    from orchestrator.manifest.request import Selection

__all__ = ["endpoint_options", "request_options", "selection_options"]


def endpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which endpoint is asked, and for which version."""
    url = click.option(
        "--url",
        default=lambda: os.environ.get("SHIP_URL", "http://127.0.0.1:8000"),
        show_default="$SHIP_URL, else http://127.0.0.1:8000",
        help="Of the endpoint.",
    )
    version = click.option(
        "--version", type=click.IntRange(min=1), help="That must answer [whichever is served]."
    )
    return url(version(command))


def selection_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which tasks of a manifest are meant; they arrive as one ``Selection``."""

    @click.option("--only", multiple=True, metavar="NAME", help="This task, or a pattern; repeatable.")
    @click.option(
        "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tasks with this tag; repeatable."
    )
    @wraps(command)
    def with_selection(*args: Any, only: tuple[str, ...], tags: tuple[str, ...], **options: Any) -> None:
        from orchestrator.manifest.request import Selection

        command(*args, selection=Selection.from_flags(only, tags), **options)

    return with_selection


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say what is asked of a manifest; they arrive as one ``Request``."""

    @selection_options
    @click.option(
        "--max-tasks", type=click.IntRange(min=1), help="Refuse to tune more [manifest's, else 1000]."
    )
    @click.option("--keep-going", is_flag=True, help="Refuse tasks with problems alone; the others go on.")
    @click.option(
        "--workers", type=click.IntRange(min=1), help="Workers at most [one a GPU, else one a CPU]."
    )
    @click.option(
        "--min-workers", type=click.IntRange(min=1), help="Wait until there is room for so many [1]."
    )
    @click.option(
        "--pack",
        type=click.IntRange(min=1),
        help="Tasks that a worker tunes side by side, at most [as many as fit its memory and pay].",
    )
    @click.option(
        "--executor",
        type=click.Choice(EXECUTORS),
        help="Ray Train, or plain actors of which one's death harms no other [train].",
    )
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
        request = Request(
            selection=selection,
            keep_going=keep_going,
            max_tasks=max_tasks,
            pool=PoolSettings(
                min_workers=min_workers, max_workers=workers, executor=executor, max_fused=pack
            ),
        )
        command(*args, request=request, **options)

    return with_request
