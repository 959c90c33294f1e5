"""Metrics that queries of rules and dashboards may name."""

import re

from tests.unit.deploy.manifests import DEPLOY

__all__ = ["exported_metrics", "named_metrics"]

_NAMED = re.compile(r"\bship_\w+")
_ROW = re.compile(r"^\| `(ship_\w+)` \| (\w+) \|", re.MULTILINE)


def named_metrics(query: str) -> set[str]:
    """Names of metrics in a query."""
    return set(_NAMED.findall(query))


def exported_metrics() -> set[str]:
    """Names that the endpoint's page has, by the reference, which a test holds equal to the code."""
    names: set[str] = set()
    for name, kind in _ROW.findall((DEPLOY.parent / "docs" / "reference.md").read_text()):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names
