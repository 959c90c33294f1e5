"""Alert rules and dashboards: read by promtool, and asking for metrics that the endpoint exports."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needs import PROMTOOL
from tests.unit.deploy.manifests import DEPLOY
from tests.unit.deploy.metric_names import exported_metrics, named_metrics

RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
needs_promtool = pytest.mark.skipif(PROMTOOL.problem() is not None, reason=str(PROMTOOL.problem()))


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def queries(dashboard: Path) -> list[str]:
    found = json.loads(dashboard.read_text())
    return [target["expr"] for panel in found["panels"] for target in panel["targets"]]


def check_rules(rules: Path) -> None:
    command = ["promtool", "check", "rules", "--lint-fatal", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_rules_are_read_by_promtool() -> None:
    check_rules(RULES)


@needs_promtool
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_queries_of_a_dashboard_are_queries(dashboard: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries(dashboard))]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    check_rules(tmp_path / "rules.yaml")


def test_rules_ask_for_metrics_that_are_exported() -> None:
    named = set().union(*(named_metrics(alert["expr"]) for alert in alerts()))
    assert named
    assert named <= exported_metrics()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_metrics_that_are_exported(dashboard: Path) -> None:
    asked = [named_metrics(query) for query in queries(dashboard)]
    assert all(asked)
    assert set().union(*asked) <= exported_metrics()


def test_every_alert_says_what_to_do() -> None:
    for alert in alerts():
        assert alert["annotations"]["summary"].endswith(".")
        assert alert["annotations"]["action"]
        assert alert["labels"]["severity"] in ("critical", "warning")


def test_dashboards_have_names_of_their_own_and_panels_that_do_not_overlap() -> None:
    found = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in found}) == len(found) == 2
    for board in found:
        cells: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            covered = {
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            }
            assert max(x for x, _ in covered) < 24
            assert not cells & covered
            cells |= covered
