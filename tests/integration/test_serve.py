"""The endpoint on a real Ray Serve, MLflow and store: one start for all of these, in this order."""

import base64
import hashlib
import json
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from orchestrator.client.client import Client, EndpointError, Prediction
from orchestrator.client.questions import Question
from orchestrator.registry.catalog_writer import follow_rollout
from orchestrator.registry.thresholds import set_rule
from orchestrator.store.documents.rule import StoredRule
from orchestrator.store.documents.token_changes import change_tokens, revoke_token, rotate_token
from orchestrator.store.documents.tokens import Scope
from orchestrator.store.drift import read_drift
from orchestrator.store.kept.pictures import KeptPictures
from ship.artifact.files import load_files
from ship.decision.rule import DecisionRule
from tests.console import run_ship
from tests.integration.plant import descendants
from tests.integration.served_plant import (
    NUM_CLASSES,
    PATIENCE_S,
    ServedPlant,
    ask,
    make_token,
    open_served_plant,
)
from tests.unit.orchestrator.serve.factory import draw_png

with warnings.catch_warnings():
    # Ray Serve's own pydantic models are written in a way that pydantic 2.14 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from orchestrator.serve.options import Limits

# SQLAlchemy 2.1 tells MLflow 3.17 of an option that it will drop.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
)

MAX_BODY_BYTES = 200_000


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPlant]:
    limits = Limits(max_body_bytes=MAX_BODY_BYTES, keep=("gears:sample=1",))
    with open_served_plant(tmp_path_factory.mktemp("plant"), limits) as plant:
        yield plant


def num_rows(client: httpx.Client, max_tasks: str) -> float:
    """Rows answered so far in batches of at most so many tasks."""
    page = client.get("/metrics").text.splitlines()
    found = [line for line in page if line.startswith("ship_batch_tasks_bucket{")]
    return sum(float(line.rpartition(" ")[2]) for line in found if f'le="{max_tasks}"' in line)


def test_every_task_answers_as_the_runtime_does(plant: ServedPlant):
    with plant.client() as client:
        for seed in range(3):
            png = draw_png(seed)
            for task in NUM_CLASSES:
                assert plant.check(ask(client, task, png), task, png) == 1


def test_a_form_is_answered_as_a_raw_body(plant: ServedPlant):
    png = draw_png()
    with plant.client() as client:
        form = client.post("/v1/predict", files={"image": png}, headers={"Ship-Task": "nuts"})
        assert plant.check(form, "nuts", png) == 1


def test_a_batch_of_any_tasks_is_answered_item_by_item(plant: ServedPlant):
    pictures = [draw_png(seed) for seed in range(3)]
    questions = [Question(task=task, image=png) for png in pictures for task in (*NUM_CLASSES, "sprockets")]
    with Client(plant.endpoint.url, plant.token) as client:
        answers = client.predict_batch(questions)
    for question, answer in zip(questions, answers, strict=True):
        if question.task == "sprockets":
            assert isinstance(answer, EndpointError)
            assert (answer.status, answer.kind) == (404, "task-unknown")
        else:
            assert isinstance(answer, Prediction)
            expected = plant.expected(question.task, 1, question.image)
            assert (answer.version, answer.probabilities) == (1, pytest.approx(expected, abs=1e-5))


def test_where_a_task_looks_is_drawn_and_told_in_numbers(plant: ServedPlant):
    with Client(plant.endpoint.url, plant.token) as client:
        found = client.attention("nuts", draw_png())
        picture = client.explain("nuts", draw_png())
    assert (found.task, found.version) == ("nuts", 1)
    patches = [share for row in found.attention for share in row]
    assert math.fsum(patches) == pytest.approx(1.0, abs=1e-4)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


def test_the_open_inference_protocol_gives_the_same_answers(plant: ServedPlant):
    png = draw_png(2)
    image = {
        "name": "image",
        "datatype": "BYTES",
        "shape": [1],
        "data": [base64.b64encode(png).decode()],
    }
    with plant.client() as client:
        assert client.get("/v2/health/ready").status_code == 200
        metadata = client.get("/v2/models/gears").json()
        reply = client.post("/v2/models/gears/infer", json={"inputs": [image]})
    assert (metadata["name"], metadata["versions"]) == ("gears", ["1"])
    assert reply.status_code == 200, reply.text
    outputs = {output["name"]: output["data"] for output in reply.json()["outputs"]}
    expected = plant.expected("gears", 1, png)
    assert sorted(outputs["probabilities"]) == pytest.approx(sorted(expected.values()), abs=1e-5)
    assert outputs["label"] == [max(expected, key=expected.__getitem__)]


def test_a_new_rule_is_followed_and_every_answer_is_decided_by_one(
    plant: ServedPlant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    png, artifact = draw_png(1), load_files(plant.artifacts["nuts", 1]).digest
    shy = StoredRule(
        task="nuts",
        artifact=artifact,
        rule=DecisionRule(temperature=5.0, min_confidence=1.0),
        by="anna",
        host="line-pc",
        time_s=1.0,
    )
    digest = plant.store.rules.write(shy)
    # The reason of an unsure, and the temperature.
    expected = {None: (None, 1.0), digest[:12]: ("confidence", 5.0)}

    def change(rule: str | None, instead_of: str | None) -> None:
        rollout = set_rule(plant.rollouts, "nuts", 1, artifact, rule, instead_of=instead_of)
        assert follow_rollout(plant.store, rollout)

    def wait_for(client: httpx.Client, rule: str | None) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            found = ask(client, "nuts", png).json()
            because, temperature = expected[found["rule"]]
            assert found.get("decision_because") == because
            assert found["decision"] == (found["label"] if because is None else "unsure")
            assert found["probabilities"] == pytest.approx(
                plant.expected("nuts", 1, png, temperature), abs=1e-5
            )
            if found["rule"] == rule:
                return
            assert time.monotonic() < deadline_s

    with plant.client() as client:
        wait_for(client, None)
        change(digest, None)
        wait_for(client, digest[:12])
        state = client.get("/v1/tasks/nuts").json()
        assert (state["rule"], state["wanted_rule"], state["problem"]) == (digest, digest, None)
        assert run_ship(monkeypatch, "--home", str(plant.settings.home), "threshold", "nuts", "--json") == 0
        assert json.loads(capsys.readouterr().out)["rule"] == digest
        page = client.get("/metrics").text
        assert 'decision="unsure_confidence"' in page
        change(None, digest)
        wait_for(client, None)


def test_each_request_has_a_line_in_the_log_by_the_id_of_its_reply(plant: ServedPlant):
    with plant.client() as client:
        given = client.post(
            "/v1/predict", content=draw_png(), headers={"Ship-Task": "bolts", "X-Request-ID": "r-7"}
        )
        made = ask(client, "sprockets", draw_png())
    assert given.headers["x-request-id"] == "r-7"
    # Written when the request is over, which is a moment after its reply is there.
    wanted, lines, text = {"r-7", made.headers["x-request-id"]}, {}, ""
    deadline_s = time.monotonic() + PATIENCE_S
    while not wanted <= lines.keys():
        assert time.monotonic() < deadline_s, text
        text = plant.request_log.read_text()
        lines = {line["request_id"]: line for line in map(json.loads, text.splitlines())}
    answered, refused = lines["r-7"], lines[made.headers["x-request-id"]]
    assert (answered["status"], answered["task"], answered["version"]) == (200, "bolts", 1)
    assert answered["route"] == "/v1/predict"
    assert answered["token"] in plant.token
    assert list(answered["stages_s"]) == ["read", "decode", "engine"]
    assert (refused["status"], refused["version"]) == (404, None)
    assert plant.token not in text


def test_images_of_different_tasks_are_answered_in_one_batch(plant: ServedPlant):
    tasks = [*NUM_CLASSES] * 8
    pictures = [draw_png(seed) for seed in range(len(tasks))]
    with plant.client() as client, ThreadPoolExecutor(len(tasks)) as pool:
        deadline_s = time.monotonic() + PATIENCE_S
        while num_rows(client, "+Inf") == num_rows(client, "1.0"):
            assert time.monotonic() < deadline_s, "no batch held more than one task"
            replies = list(pool.map(ask, [client] * len(tasks), tasks, pictures))
            for reply, task, png in zip(replies, tasks, pictures, strict=True):
                plant.check(reply, task, png)


def test_bad_requests_are_refused_each_in_its_way(plant: ServedPlant):
    png = draw_png()
    to_bolts = {"Ship-Task": "bolts", "Content-Type": "image/png"}

    def chunks() -> Iterator[bytes]:
        yield from [bytes(50_000)] * 10

    with plant.client() as client:
        replies = {
            "unknown task": (404, ask(client, "sprockets", png)),
            "other version": (
                404,
                client.post("/v1/predict", content=png, headers={**to_bolts, "Ship-Version": "9"}),
            ),
            "no task": (400, client.post("/v1/predict", content=png)),
            "no name": (400, ask(client, "../bolts", png)),
            "no image": (415, ask(client, "bolts", b"GIF89a" + bytes(50))),
            "broken image": (422, ask(client, "bolts", png[:300])),
            "too large": (413, ask(client, "bolts", bytes(MAX_BODY_BYTES + 1))),
            "too large, unsaid": (413, client.post("/v1/predict", content=chunks(), headers=to_bolts)),
            "wrong method": (405, client.get("/v1/predict")),
            "no such page": (404, client.get("/v1/nothing")),
        }
    for name, (status, reply) in replies.items():
        assert reply.status_code == status, name
        assert reply.headers["content-type"] == "application/problem+json", name
        assert reply.json()["status"] == status, name


def test_a_prompt_for_another_backbone_is_reported_and_harms_no_other(plant: ServedPlant):
    with plant.client() as client:
        reply = ask(client, "foreign", draw_png())
        assert reply.status_code == 503
        assert "retry-after" in reply.headers
        assert "belongs to backbone" in client.get("/v1/tasks/foreign").json()["problem"]
        found = client.get("/readyz").json()
        assert (found["status"], found["ready"]) == ("ready", True)
        assert (found["num_served"], found["num_problems"], found["num_loading"]) == (3, 1, 0)
        assert found["catalog_age_s"] < 30.0
        assert set(found["last_look_s"]) == {"catalog", "registry", "tokens"}
        assert max(found["last_look_s"].values()) < 30.0
        page = client.get("/metrics").text
        assert re.search(r'ship_last_look_seconds\{engine="",ingress="\w+",of="registry"\}', page)


def test_a_promotion_arrives_under_load_without_a_failed_or_mixed_answer(plant: ServedPlant):
    candidate = plant.register("bolts", seed=7)
    png = draw_png(3)
    replies: list[httpx.Response] = []
    seen: set[str] = set()
    done = threading.Event()

    def keep_asking() -> None:
        with plant.client() as client:
            while not done.is_set():
                reply = ask(client, "bolts", png)
                replies.append(reply)
                seen.add(reply.headers.get("ship-version", "none"))

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(seen, "1")
        plant.rollouts.promote("bolts", candidate)
        wait_for(seen, str(candidate))
        plant.rollouts.rollback("bolts")
        seen.clear()
        wait_for(seen, "1")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {plant.check(reply, "bolts", png) for reply in replies} == {1, candidate}


def wait_for(seen: set[str], version: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while version not in seen:
        assert time.monotonic() < deadline_s, f"version {version} did not arrive; seen: {seen}"
        time.sleep(0.02)


def test_tokens_are_asked_for_and_followed_without_a_restart(plant: ServedPlant):
    png = draw_png()
    with httpx.Client(base_url=plant.endpoint.url, timeout=PATIENCE_S, trust_env=False) as stranger:
        reply = ask(stranger, "bolts", png)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert [stranger.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    first = make_token(plant.store, "bolts-only", Scope(predict=("bolt*",)))
    with plant.client(first) as client:
        wait_for_status(client, 200)
        assert ask(client, "nuts", png).status_code == 403
        assert client.get("/metrics").status_code == 403
        assert [task["task"] for task in client.get("/v1/tasks").json()["tasks"]] == ["bolts"]
        second = change_tokens(
            plant.store, lambda tokens: rotate_token(tokens, "bolts-only", now_s=time.time())
        ).text
        wait_for_status(client, 401)
    with plant.client(second) as client:
        assert ask(client, "bolts", png).status_code == 200
        change_tokens(plant.store, lambda tokens: revoke_token(tokens, "bolts-only"))
        wait_for_status(client, 401)


def wait_for_status(client: httpx.Client, status: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := ask(client, "bolts", draw_png()).status_code) != status:
        assert time.monotonic() < deadline_s, f"{found} stays"
        time.sleep(0.1)


def test_pictures_are_kept_as_they_were_sent_unless_the_request_says_no(plant: ServedPlant):
    unwanted, wanted = draw_png(4711), draw_png(4712)
    with plant.client() as client:
        headers = {"Ship-Task": "gears", "Content-Type": "image/png"}
        reply = client.post("/v1/predict", content=unwanted, headers={**headers, "Ship-Keep": "no"})
        assert reply.status_code == 200
        answered = ask(client, "gears", wanted).json()
        assert ask(client, "nuts", draw_png(4713)).status_code == 200
    kept = KeptPictures(plant.store.objects)
    name = hashlib.sha256(wanted).hexdigest()
    wait_until(lambda: name in {one.picture for one in kept.files("gears") if one.is_whole})
    # They are written in the order of their answers.
    assert hashlib.sha256(unwanted).hexdigest() not in {one.picture for one in kept.files("gears")}
    assert list(plant.store.objects.list("kept/nuts/")) == []
    found = kept.read("gears", name)
    assert kept.fetch("gears", name) == wanted
    assert (found.reason, found.version) == ("sample", answered["version"])
    assert dict(found.probabilities) == pytest.approx(answered["probabilities"])


def test_answers_reach_the_watch_for_drift(plant: ServedPlant):
    """By way of the poller, which writes once a minute; these artifacts have nothing to compare with."""
    wait_until(lambda: {"nuts", "gears"} <= read_drift(plant.store.objects)[0].tasks.keys())
    entry = read_drift(plant.store.objects)[0].tasks["nuts"]
    assert entry.digest == load_files(plant.artifacts["nuts", 1]).digest
    assert entry.not_watched == "the version was tuned by an earlier ship, which kept no held-out answers"


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_an_engine_that_is_killed_costs_no_request(plant: ServedPlant):
    (engine,) = [pid for pid, name in descendants(os.getpid()) if "ServeReplica:ship:Engine" in name]
    png = draw_png(4)
    num_before = 0
    killed = threading.Event()

    def ask_before_and_after(task: str) -> list[httpx.Response]:
        nonlocal num_before
        replies = []
        with plant.client() as client:
            while not killed.is_set():
                replies.append(ask(client, task, png))
                num_before += 1
            replies.append(ask(client, task, png))
        return replies

    with ThreadPoolExecutor(3) as pool:
        asking = {task: pool.submit(ask_before_and_after, task) for task in NUM_CLASSES}
        while num_before < 6:
            time.sleep(0.01)
        os.kill(engine, signal.SIGKILL)
        killed.set()
        replies = [(task, reply) for task, asked in asking.items() for reply in asked.result()]
    # ``bolts`` has had a candidate by now, and was rolled back.
    assert {plant.check(reply, task, png) for task, reply in replies} == {1}


def test_nothing_is_left_when_it_stops(plant: ServedPlant):
    assert any("ServeReplica:ship:Engine" in name for _, name in descendants(os.getpid()))
    plant.endpoint.close()
    deadline_s = time.monotonic() + PATIENCE_S
    while left := {pid: name for pid, name in descendants(os.getpid()) if "ray" in name}:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.1)
    with pytest.raises(httpx.ConnectError):
        httpx.get(plant.endpoint.url, trust_env=False)
