"""The page of a report: figures recomputed from the document, hostile names, nothing fetched, bounded."""

import json
import re
import stat
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.charts import draw_accuracy, draw_learning_curve
from orchestrator.report.document import Report, make_report
from orchestrator.report.section import make_section
from tests.unit.orchestrator.report.factory import (
    HOSTILE,
    make_card,
    make_held_out,
    make_record,
    make_verdict,
)
from tests.unit.orchestrator.report.page_reader import PageReader, check_figures

RUN = {"name": "tune-1", "manifest": "lines.yaml", "backbone": "bundled"}
REPLACED = {
    "settings": {"kind": "lora"},
    "accuracy": 0.5,
    "balanced_accuracy": 0.45,
    "gained": 2,
    "lost": 9,
    "p_worse": 0.03,
}


def make(
    *tasks: str, name: str = "image", labels: tuple[str, ...] = ("good", "scratch"), **values: Any
) -> Report:
    sections = {}
    for task in tasks:
        before = make_card(metrics={"accuracy": 0.75}, config={"kind": "probe"})
        sections[task] = make_section(
            make_card(task),
            make_record(labels, instead_of=values.pop("instead_of", None)),
            make_held_out(labels, f"{name}-{task}"),
            verdict=make_verdict(task),
            before=before,
        )
    verdicts = [make_verdict(task, **values) for task in tasks]
    return make_report(RUN, verdicts, sections, max_thumbnails_bytes=8_000_000)


def test_every_figure_is_recomputed_from_the_document() -> None:
    report = make("welds", "caps", instead_of={**REPLACED, "cause": "it collapsed"})
    places = check_figures(report.to_html(), report.to_json())
    for expected in (
        *("accuracy", "accuracy_low", "accuracy_high", "probe_accuracy", "worst_class.recall"),
        *("cost.tuning_s", "cost.epochs", "cost.device_bytes", "classes.1.recall", "confusion.1.0"),
        *("mistakes.0.probability", "narrow.0.runner_up_probability", "changes.gain", "verdict.champion"),
        *("learning_curve.probe.0.accuracy", "learning_curve.expected.2.images", "balanced_accuracy"),
        *("decision.shares.0.share", "decision.promised.0.promised", "decision.promised.0.expected.low"),
    ):
        assert f"tasks.0.{expected}" in places
        assert f"tasks.1.{expected}" in places
    assert any(place.endswith("instead_of.p_worse") for place in places)
    assert any(place.endswith("instead_of.balanced_accuracy") for place in places)


def test_no_number_stands_on_the_page_but_from_the_document() -> None:
    page = make("welds").to_html().decode()
    body = page[page.index("<main>") :]
    bare = unescape(re.sub(r"<data .*?</data>|<svg.*?</svg>|<[^>]*>", " ", body, flags=re.DOTALL))
    row = json.loads(make("welds").to_json())["tasks"][0]
    texts = [row["verdict"]["reason"], *row["warnings"], *(one["path"] for one in row["mistakes"])]
    texts += [one["path"] for one in row["narrow"]]
    texts += ["95% interval", *(f"not set before, {one['now']} now" for one in row["changes"]["settings"])]
    for text in texts:
        bare = bare.replace(text, "")
    assert not re.findall(r"\d+(?:\.\d+)?", bare), bare


def test_hostile_names_are_text_and_nothing_else() -> None:
    labels = ("good", HOSTILE)
    report = make("welds", name=HOSTILE, labels=labels, reason=HOSTILE)
    clean, hostile = PageReader.of(make("welds").to_html()), PageReader.of(report.to_html())
    assert hostile.tags == clean.tags, "names make no elements"
    assert hostile.handlers == []
    assert [one[:2] for one in hostile.attributes] == [one[:2] for one in clean.attributes]
    assert "<script>alert('x')</script>" in hostile.text
    assert "{{7*7}}{% raw %}" in hostile.text
    assert "\u202e" not in hostile.text
    assert json.loads(report.to_json())["tasks"][0]["classes"][1]["label"] == HOSTILE


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    page = make("welds")
    reader = PageReader.of(page.to_html())
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    assert reader.addresses
    assert all(address.startswith(("#task-", "data:image/jpeg;base64,")) for address in reader.addresses)
    policies = [value for tag, name, value in reader.attributes if (tag, name) == ("meta", "content")]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policies
    assert "url(" not in page.to_html().decode()
    assert reader.open == []


def test_thumbnails_are_bounded_fairly_and_what_is_left_out_is_said() -> None:
    tasks = [f"task-{number}" for number in range(4)]
    whole = make(*tasks)
    sections = {
        task: make_section(
            make_card(task), make_record(), make_held_out(name=task), verdict=make_verdict(task)
        )
        for task in tasks
    }
    sizes = [len(jpeg) for section in sections.values() for jpeg in section.thumbnails.values()]
    room = sum(sizes) // 2
    report = make_report(RUN, [make_verdict(task) for task in tasks], sections, max_thumbnails_bytes=room)
    reader = PageReader.of(report.to_html())
    kept = [address for address in reader.addresses if address.startswith("data:")]
    assert 0 < len(kept) < len(sizes)
    assert sum(len(address) * 3 / 4 for address in kept) < room + 64 * len(kept)
    assert report.document["num_thumbnails_left_out"] == len(sizes) - len(kept)
    assert f"{len(sizes) - len(kept)} pictures are left out" in reader.text
    counts = [reader_count(report, number) for number in range(4)]
    assert min(counts) > 0, "each task has its share"
    assert whole.document["num_thumbnails_left_out"] == 0


def reader_count(report: Report, number: int) -> int:
    page = report.to_html().decode()
    part = page.split(f'id="task-{number}"')[1].split("<section")[0]
    return part.count("data:image/jpeg")


def test_the_worst_verdicts_come_first_and_a_failed_task_has_its_cause() -> None:
    kinds = ["serves", "needs-data", "failed", "unknown", "withheld", "needs-backbone"]
    verdicts = [make_verdict(f"t-{kind}", kind, reason=f"because {kind}") for kind in kinds]
    report = make_report(RUN, verdicts, {})
    assert [row["verdict"]["kind"] for row in report.document["tasks"]] == [
        *("failed", "withheld", "needs-backbone", "needs-data", "unknown", "serves")
    ]
    text = PageReader.of(report.to_html()).text
    assert "because failed" in text
    assert report.document["summary"].startswith("1 of 6 serve; 1 needs data; 1 needs another backbone")
    assert report.document["summary"] in text


def test_the_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    page = make("welds").write(tmp_path)
    assert page == tmp_path / "report.html"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_an_artifact_of_version_0_1_0_has_a_page() -> None:
    folder = Path(__file__).parents[3] / "fixtures" / "artifact-0.1.0"
    card, record = (json.loads((folder / name).read_bytes()) for name in ("prompt.json", "record.json"))
    verdict = make_verdict(card["task"])
    report = make_report(RUN, [verdict], {card["task"]: make_section(card, record, None, verdict=verdict)})
    places = check_figures(report.to_html(), report.to_json())
    assert {"tasks.0.accuracy", "tasks.0.probe_accuracy", "tasks.0.classes.0.recall"} <= places


def test_a_bar_is_drawn_to_scale() -> None:
    drawn = draw_accuracy(0.5, 0.75, 1.0, 0.25)
    assert '<rect class="interval" x="60" y="3" width="60"' in drawn
    assert '<path class="mark" d="M90 1v12"/>' in drawn
    assert '<circle class="probe" cx="30"' in drawn
    assert "circle" not in draw_accuracy(0.5, 0.75, 1.0, None)


def test_a_curve_is_drawn_to_scale() -> None:
    probe = [
        {"images": 25, "accuracy": 0.5},
        {"images": 50, "accuracy": 0.6},
        {"images": 100, "accuracy": 0.7},
    ]
    expected = [{"images": 100, "accuracy": 0.8}, {"images": 400, "accuracy": 0.9}]
    drawn = draw_learning_curve(probe, expected)
    points = {
        said: (float(x), float(y))
        for x, y, said in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="4"><title>(.*?)</title>', drawn)
    }
    assert set(points) == {
        *("25 images: 0.500", "50 images: 0.600", "100 images: 0.700"),
        *("100 images: 0.800", "400 images: 0.900"),
    }
    x = {number: points[said][0] for said in points for number in [int(said.split()[0])]}
    assert x[50] - x[25] == pytest.approx(x[100] - x[50], abs=0.2), "each doubling is as wide"
    assert x[400] - x[100] == pytest.approx(2 * (x[50] - x[25]), abs=0.2)
    heights = [points[said][1] for said in sorted(points, key=lambda said: float(said.split()[-1]))]
    steps = [a - b for a, b in pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.2), "each tenth is as high"
