"""Metrics of all ingresses: a scrape reaches one of them, and its page is to have the counts of all."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

__all__ = ["Families", "Peers", "render_page"]

Families = list[Metric]
_log = logging.getLogger(__name__)


class Peers:
    """The ingresses of one endpoint, this one among them.

    Args:
        name: Name of this ingress.
        find: Gives the handle of their deployment; may take a while.
    """

    def __init__(self, name: str, find: Callable[[], Any]) -> None:
        self.name = name
        self._find = find
        self._handle: Any = None
        self._said: dict[str, Families] = {}

    async def families(self, own: Families, timeout_s: float) -> Mapping[str, Families]:
        """Families of all ingresses, by name; of the others as they said last, if they cannot be asked."""
        if found := await self.ask("families", timeout_s):
            self._said = dict(found)
        return {**self._said, self.name: own}

    async def ask(self, method: str, timeout_s: float) -> list[Any]:
        """What a method of all ingresses, this one among them, returns; none if they cannot be asked."""
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(self._find)
            replies = await self._handle.broadcast(method).results_async(
                timeout_s=timeout_s, return_exceptions=True
            )
        # A boundary: metrics matter most while something is wrong.
        except Exception as error:
            _log.debug("the other ingresses do not say what they count: %s", error)
            return []
        return [one for one in replies if not isinstance(one, BaseException)]


class _Page(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def render_page(of_ingress: Mapping[str, Families], common: Families) -> bytes:
    """Page of metrics in Prometheus' text format.

    Args:
        of_ingress: Families by the name of an ingress, which becomes a label; of one without a name as they
            are.
        common: Families that all ingresses have in common.
    """
    merged: dict[str, Metric] = {}
    for name, families in (("", common), *sorted(of_ingress.items())):
        for family in families:
            into = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            label = {"ingress": name} if name else {}
            into.samples += [sample._replace(labels={**sample.labels, **label}) for sample in family.samples]
    registry = CollectorRegistry()
    registry.register(_Page(list(merged.values())))
    return generate_latest(registry)
