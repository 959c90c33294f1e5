"""Flags that several commands share."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from orchestrator.settings import EXECUTORS, Executor

__all__ = ["request_options"]


def request_options(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that say what is asked of a manifest; they arrive as one ``Request``."""

    @click.option("--only", multiple=True, metavar="NAME", help="This task, or a pattern; repeatable.")
    @click.option(
        "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tasks with this tag; repeatable."
    )
    @click.option(
        "--max-tasks", type=click.IntRange(min=1), help="Refuse to tune more [manifest's, else 1000]."
    )
    @click.option("--keep-going", is_flag=True, help="Refuse tasks with problems alone; the others go on.")
    @click.option(
        "--workers", type=click.IntRange(min=1), help="Workers at most [one a GPU, else one a CPU]."
    )
    @click.option(
        "--executor",
        type=click.Choice(EXECUTORS),
        help="Ray Train, or plain actors of which one's death harms no other [train].",
    )
    @wraps(command)
    def with_request(
        *args: Any,
        only: tuple[str, ...],
        tags: tuple[str, ...],
        max_tasks: int | None,
        keep_going: bool,
        workers: int | None,
        executor: Executor | None,
        **options: Any,
    ) -> None:
        from orchestrator.selection import Request, Selection

        request = Request(
            selection=Selection.from_flags(only, tags),
            keep_going=keep_going,
            max_tasks=max_tasks,
            num_workers=workers,
            executor=executor,
        )
        command(*args, request=request, **options)

    return with_request
