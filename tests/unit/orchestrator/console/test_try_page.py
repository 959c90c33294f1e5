"""The page Try: answers, refusals as the endpoint gives them, and commands that ask the same."""

import ast
import shlex
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from orchestrator.client.answers import Prediction
from orchestrator.client.client import EndpointError
from orchestrator.client.questions import Attention
from tests.unit.orchestrator.console.factory import make_console
from tests.unit.orchestrator.registry.factory import World

HOSTILE = "<img src=x onerror=alert(1)>"


@dataclass
class FakeEndpoint:
    """Client of an endpoint that serves bolts in version 2, with a label of foreign text."""

    url: str = "http://127.0.0.1:8000"
    asked: list[tuple[str, bytes, int | None]] = field(default_factory=list)

    def predict(self, task: str, image: bytes, *, version: int | None = None) -> Prediction:
        self.asked.append((task, image, version))
        if task != "bolts":
            raise EndpointError(f"404 task-unknown: task {task!r} is not in the catalog", 404, "task-unknown")
        return Prediction(
            task=task,
            version=version or 2,
            digest="d" * 64,
            label=HOSTILE,
            probabilities={HOSTILE: 0.75, "good": 0.25},
            backbone="b" * 64,
            decision="unsure",
            decision_because="far",
        )

    def explain_whole(
        self, task: str, image: bytes, *, version: int | None = None
    ) -> tuple[Attention, bytes]:
        found = Attention(
            task=task,
            version=version or 2,
            digest="d" * 64,
            attention=((1.0,),),
            bare_attention=((1.0,),),
            entropy=0.5,
            bare_entropy=0.75,
            distance=0.25,
        )
        return found, b"a drawing"


@pytest.fixture
def endpoint() -> FakeEndpoint:
    return FakeEndpoint()


@pytest.fixture
def world() -> World:
    world = World()
    for task in ("bolts", "nuts", "welds"):
        world.add(task)
    return world


def ask(browser: Any, path: str = "/try.json", name: str = "cap.png", **form: Any) -> httpx.Response:
    reply: httpx.Response = browser.post(
        path, data={"task": ["bolts"], **form}, files={"picture": (name, b"a picture", "image/png")}
    )
    return reply


def test_tasks_answer_with_timing_attention_and_the_commands(world: World, endpoint: FakeEndpoint) -> None:
    browser = make_console(world=world, endpoint=endpoint).sign_in()  # type: ignore[arg-type]
    assert browser.get("/try.json?task=nuts&task=gone").json()["chosen"] == ["nuts"]
    bolts, nuts = ask(browser, task=["bolts", "nuts"], attention="true").json()["answers"]
    assert (bolts["answer"]["version"], bolts["answer"]["decision_because"]) == (2, "far")
    assert bolts["attention"]["distance"] == 0.25
    assert bolts["attention"]["drawing"].startswith("data:image/png;base64,")
    assert bolts["answer_s"] >= 0
    assert nuts["answer"] is None
    assert (nuts["problem"]["status"], nuts["problem"]["kind"]) == (404, "task-unknown")
    assert endpoint.asked == [("bolts", b"a picture", None), ("nuts", b"a picture", None)]


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
def test_the_page_shows_answers_as_text(
    world: World, endpoint: FakeEndpoint, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHIP_TOKEN", "ship_secret")
    browser = make_console(world=world, endpoint=endpoint).sign_in()  # type: ignore[arg-type]
    browser.headers.update(headers)
    page = ask(browser, "/try", name=HOSTILE, task=["bolts", "nuts"], attention="true").text
    assert "far from all training images" in page
    assert "task-unknown" in page
    assert page.count("<img") - page.count('<img id="preview"') == 1, "the drawing alone"
    assert "$SHIP_TOKEN" in page
    assert "ship_secret" not in page
    assert ("<html" in page) is not bool(headers)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("cap 1.png", "cap 1.png"),
        ("it's.png", "it's.png"),
        ("$(reboot).png", "picture.png"),
        ("`reboot`.png", "picture.png"),
        ("a;reboot.png", "a;reboot.png"),
        ("", None),
    ],
)
def test_commands_name_the_file_and_run_nothing(
    world: World, endpoint: FakeEndpoint, name: str, sent: str | None
) -> None:
    browser = make_console(world=world, endpoint=endpoint).sign_in()  # type: ignore[arg-type]
    reply = ask(browser, name=name, version="3")
    if sent is None:
        assert reply.status_code in (400, 422), "a browser sends an empty name where no file was chosen"
        return
    [answer] = reply.json()["answers"]
    assert endpoint.asked[-1][2] == 3
    line = shlex.split(answer["commands"]["curl"])
    assert line == [
        *(
            "curl",
            "-H",
            "Authorization: Bearer $SHIP_TOKEN",
            "-H",
            "Ship-Task: bolts",
            "-H",
            "Ship-Version: 3",
        ),
        *("--data-binary", f"@{sent}", "http://127.0.0.1:8000/v1/predict"),
    ]
    program = ast.parse(answer["commands"]["python"])
    texts = [node.value for node in ast.walk(program) if isinstance(node, ast.Constant)]
    assert texts == ["http://127.0.0.1:8000", "bolts", sent, 3]


def test_tasks_that_the_token_does_not_cover_are_not_asked(world: World, endpoint: FakeEndpoint) -> None:
    browser = make_console(world=world, endpoint=endpoint).sign_in(predict=("bolts",))  # type: ignore[arg-type]
    assert browser.get("/try.json").json()["tasks"] == ["bolts"]
    assert ask(browser, task=["bolts", "nuts"]).status_code == 404
    assert endpoint.asked == []


def test_what_cannot_be_asked_says_what_is_expected(world: World, endpoint: FakeEndpoint) -> None:
    browser = make_console(world=world, endpoint=endpoint).sign_in()  # type: ignore[arg-type]
    many = ask(browser, task=[f"task-{number}" for number in range(9)])
    assert (many.status_code, "1 to 8 tasks" in many.text) == (400, True)
    assert ask(browser, task=[]).status_code == 400
    assert ask(browser, version="-1").status_code == 422
    empty = browser.post("/try.json", data={"task": "bolts"}, files={"picture": ("a.png", b"", "image/png")})
    assert (empty.status_code, "choose one first" in empty.text) == (400, True)
    assert endpoint.asked == []
    without = make_console(world=world).sign_in("otto")
    assert "was given no endpoint" in without.get("/try").text
    assert ask(without).status_code == 409
