"""Completion of task and run names in a shell: quick, without a write, a request to a server or an error."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import click

from orchestrator.settings import Settings

__all__ = ["complete_run", "complete_task", "complete_task_of_run", "task_argument"]

_Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completes(find: Callable[[Settings], Iterable[str]]) -> _Complete:
    """Completion by the names that ``find`` knows; none where it fails."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        options = context.find_root().params
        before = logging.root.manager.disable
        logging.disable()
        # A boundary: at a shell's prompt no error helps, whatever is wrong.
        try:
            settings = Settings.from_env(os.environ, home=options.get("home"), store=options.get("store"))
            return sorted(name for name in set(find(settings)) if name.startswith(incomplete))
        except Exception:
            return []
        finally:
            logging.disable(before)

    return complete


def _find_tasks(settings: Settings) -> Iterable[str]:
    """Tasks of MLflow's file; else those that an endpoint on this machine served last."""
    from orchestrator.names import MODEL_PREFIX
    from orchestrator.registry.database_file import read_models

    models = read_models(str.__str__(settings.tracking_uri))
    if models is not None:
        return [model.name.removeprefix(MODEL_PREFIX) for model in models if _is_ours(model.name)]
    from orchestrator.serve.options import EngineOptions
    from orchestrator.serve.residency.kept_catalog import open_kept_catalog

    kept = open_kept_catalog(
        settings.store, EngineOptions(cache=settings.cache, cache_bytes=settings.cache_bytes)
    )
    found = None if kept is None else kept.read()
    return [] if found is None else [*found[0].entries, *found[0].idle]


def _is_ours(model: str) -> bool:
    from orchestrator.names import MODEL_PREFIX, is_task_name

    return model.startswith(MODEL_PREFIX) and is_task_name(model.removeprefix(MODEL_PREFIX))


def _find_tasks_of_run(settings: Settings) -> Iterable[str]:
    from orchestrator.train.run.view import RunView

    found = RunView(settings.home).status()
    return [] if found is None else [status.task for status in found[0].tasks]


def _find_runs(settings: Settings) -> Iterable[str]:
    from orchestrator.train.run.view import list_runs

    return [about.run for about in list_runs(settings.home)]


complete_task = _completes(_find_tasks)
complete_task_of_run = _completes(_find_tasks_of_run)
complete_run = _completes(_find_runs)


def task_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument TASK of a command on the registry."""
    return click.argument("task", shell_complete=complete_task)(command)
