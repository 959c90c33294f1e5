"""Alert rules and dashboards: read by promtool, and asking for metrics that the endpoint exports."""

import json
import re
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


# Of two ingresses, each of whose pages has the counts of both: Kubernetes scrapes both.
SERIES = [
    (f'{name}{{{labels},ingress="{ingress}",instance="{page}:8000",pod="{page}"}}', values)
    for name, labels, values in (
        ("ship_requests_total", 'route="/v1/predict",status="200"', "0+60x1500"),
        ("ship_answers_total", 'task="caps"', "0+60x1500"),
        ("ship_prompt_loads_total", 'engine="e1"', "0+60x1500"),
    )
    for ingress in ("i1", "i2")
    for page in ("p1", "p2")
]


@needs_promtool
@pytest.mark.parametrize(
    ("board", "title", "labels", "value"),
    [
        ("endpoint", "Requests a second, by status", '{status="200"}', 2),
        ("endpoint", "Prompts loaded, swapped, evicted, failed, an hour", "{}", 7200),
        ("fleet", "Answers today", "{}", 172_800),
    ],
)
def test_counts_that_two_pages_have_are_counted_once(
    board: str, title: str, labels: str, value: int, tmp_path: Path
) -> None:
    panels = json.loads((DEPLOY / "grafana" / "dashboards" / f"{board}.json").read_text())["panels"]
    [panel] = [one for one in panels if one["title"] == title]
    case = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in SERIES],
        "promql_expr_test": [
            {
                "expr": panel["targets"][0]["expr"],
                "eval_time": "24h",
                "exp_samples": [{"labels": labels, "value": value}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [case]}))
    command = ["promtool", "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_no_count_of_a_dashboard_is_summed_over_pages(dashboard: Path) -> None:
    for query in queries(dashboard):
        counts = re.findall(r"(max without \(instance, pod\) \()?(?:rate|increase)\(", query)
        assert all(counts), query


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
