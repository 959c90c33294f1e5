"""The page of mistakes: hostile names stay text, and every figure is one of the report's."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from orchestrator.cli.output import Output, printable
from orchestrator.cli.picture_page import render_page
from orchestrator.cli.picture_report import print_report
from ship.artifact.held_out import HeldOut
from ship.artifact.report import report_answers
from ship.decision.rule import DecisionRule

HOSTILE = (
    "<script>alert(1)</script>.png",
    'x" onerror="alert(1)".png',
    "'><img src=http://evil.example/x.png>",
    "\x1b[31mred\x1b[0m\x07.png",
    "caf\udce9.png",
    "a\u202egnp.exe",
    "[bold]markup[/bold].png",
    "&lt;b&gt;.png",
    "line\nbreak\r.png",
)


def make_answers(labels: tuple[str, ...] = ("good", "<b>scratch</b>")) -> HeldOut:
    """Answers that are all wrong but one."""
    num = len(HOSTILE) + 1
    return HeldOut(
        labels=labels,
        paths=(*HOSTILE, "right.png"),
        digests=("0" * 32,) * num,
        labels_B=(1,) * num,
        logits_BC=(*((2.0 + place, 1.0) for place in range(num - 1)), (0.0, 0.5)),
        thumbnails={0: draw_jpeg(), num - 1: draw_jpeg()},
        num_images=num,
    )


def draw_jpeg() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(content, "JPEG")
    return content.getvalue()


def make_report(answers: HeldOut, **place: Any) -> dict[str, Any]:
    report = report_answers(answers, DecisionRule())
    place = {"task": "caps", "version": 3, "data": None, "split": None, **place}
    return {**place, "num_mistakes": len(report["mistakes"]), **report}


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_hostile_names_are_text() -> None:
    answers = make_answers()
    content = render_page(make_report(answers, data="<i>data</i>"), answers.thumbnails)
    assert content.encode("utf-8")
    page = Page(content)
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "tr", "th"),
        *("td", "figure", "figcaption", "img", "strong", "br"),
    }
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "href" not in attributes
        if tag == "img":
            assert attributes["src"] is not None
            assert attributes["src"].startswith("data:image/jpeg;base64,")
    for name in HOSTILE:
        assert printable(name) in page.text
    assert all(char.isprintable() or char == "\n" for char in content)
    policies = [attributes for _, attributes in page.tags if "http-equiv" in attributes]
    assert policies[0]["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_figure_of_the_page_is_one_of_the_report() -> None:
    answers = make_answers()
    report = make_report(answers)
    page = Page(render_page(report, answers.thumbnails))
    known = {f"{number:.4f}" for number in _floats(report)}
    assert set(re.findall(r"\d+\.\d{4}", page.text)) <= known
    assert len([tag for tag, _ in page.tags if tag == "figure"]) == report["num_mistakes"] + 1
    assert page.text.count("no thumbnail") == report["num_mistakes"] - 1
    assert f"Wrong answers: {report['num_mistakes']}" in page.text
    cut = Page(render_page({**report, "mistakes": report["mistakes"][:2]}, {}))
    assert f"{report['num_mistakes'] - 2} more are not shown." in cut.text


def test_false_accepts_are_marked_and_come_first() -> None:
    answers = replace(
        make_answers(), labels_B=(0, 0, *(1,) * 8), logits_BC=((0.0, 9.0),) * 2 + ((1.0, 0.0),) * 8
    )
    page = Page(render_page(make_report(answers), {}))
    kinds = [attributes.get("class") for tag, attributes in page.tags if tag == "figure"]
    assert kinds == ["accept"] * 8 + [None] * 2


def test_of_many_classes_the_most_frequent_confusions_are_listed() -> None:
    labels = tuple(f"class-{number}" for number in range(40))
    labels_B = torch.arange(80) % 40
    scores = torch.nn.functional.one_hot((labels_B + (labels_B == 7).long()) % 40, 40).float()
    answers = HeldOut(
        labels=labels,
        paths=tuple(map(str, range(80))),
        digests=("0" * 32,) * 80,
        labels_B=tuple(labels_B.tolist()),
        logits_BC=tuple(map(tuple, scores.tolist())),
        num_images=80,
    )
    page = Page(render_page(make_report(answers), {}))
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 2
    assert "class-7 class-8 2" in page.text


def test_hostile_names_do_nothing_to_a_terminal() -> None:
    written = io.StringIO()
    console = Console(file=written, width=400, force_terminal=False)
    print_report(console, make_report(make_answers()), 20)
    text = written.getvalue()
    assert all(char.isprintable() or char == "\n" for char in text)
    for name in HOSTILE:
        assert printable(name) in text


def test_names_that_are_not_utf_8_are_json(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Output().print_json(make_report(make_answers()))
    assert b"caf\\udce9.png" in capfdbinary.readouterr().out


def _floats(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _floats(item)]
    if isinstance(value, list):
        return [number for item in value for number in _floats(item)]
    return [float(value)] if isinstance(value, (int, float)) else []
