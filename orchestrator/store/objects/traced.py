"""Spans of what is done with objects of a store, below the span that it is done for."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from orchestrator.tracing import current, span

__all__ = ["traced"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def traced(method: _Method) -> _Method:
    """A method of an ``ObjectStore`` about one key, in a span of its own where its caller is traced."""

    @wraps(method)
    def call(store: Any, key: str, *args: Any, **how: Any) -> Any:
        if current() is None:
            return method(store, key, *args, **how)
        with span(f"store.{method.__name__}", {"ship.key": key}, kind="client"):
            return method(store, key, *args, **how)

    return cast("_Method", call)
