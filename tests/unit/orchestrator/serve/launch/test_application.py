"""Endpoints on one Ray cluster: each has names of its own, takes no other's, and deletes its own alone."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from orchestrator.errors import ServeError
from orchestrator.serve.launch.application import EndpointApplication, name_endpoint
from orchestrator.serve.launch.ray_serve import ServePlace, check_place


@dataclass
class FakeServe:
    """Ray Serve's rules: one application a name, and one a route prefix."""

    deployed: dict[str, str | None] = field(default_factory=dict)
    problem: Exception | None = None
    said: str = ""

    def status(self) -> Any:
        engine = SimpleNamespace(message=self.said)
        found = {
            name: SimpleNamespace(status="RUNNING", message="", deployments={"Engine": engine})
            for name in self.deployed
        }
        return SimpleNamespace(applications=found)

    def run_many(self, targets: Any) -> None:
        if self.problem is not None:
            self.deployed[targets[0].name] = None
            raise self.problem
        for target in targets:
            holders = [name for name, prefix in self.deployed.items() if prefix == target.route_prefix == "/"]
            if holders and holders != [target.name]:
                raise RayServeException(f"Prefix / is being used by application {holders[0]!r}.")
            self.deployed[target.name] = target.route_prefix

    def delete(self, name: str) -> None:
        del self.deployed[name]


def application(serve: FakeServe, name: str) -> EndpointApplication:
    return EndpointApplication(name, serve)


def test_names_follow_the_store() -> None:
    names = {name_endpoint(url) for url in ("s3://plant/ship", "s3://plant/other", "file:///ship/store")}
    assert len(names) == 3
    assert name_endpoint("s3://plant/ship") in names
    assert name_endpoint("s3://plant/ship", "line-3") == "line-3"


@pytest.mark.parametrize("name", ["", "Line", "a/b", "-a", "a" * 41, "a#b", "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ServeError, match=r"--name .*expected 1 to 40 characters"):
        name_endpoint("s3://plant/ship", name)


def test_an_endpoint_of_the_same_name_is_refused_and_stays() -> None:
    serve = FakeServe()
    application(serve, "ship-1").run("ingress")
    with pytest.raises(ServeError, match=r"ship-1 \(RUNNING\).*`ship serve --stop --name ship-1`"):
        application(serve, "ship-1").check_absent()
    assert serve.deployed == {"ship-1": "/"}


def test_a_second_endpoint_of_a_cluster_is_refused_and_takes_nothing() -> None:
    serve = FakeServe()
    application(serve, "ship-1").run("ingress")
    second = application(serve, "ship-2")
    second.check_absent()
    with pytest.raises(ServeError, match=r"ship-1.*one endpoint, on one port.*RAY_ADDRESS"):
        second.run("ingress")
    second.delete()
    assert serve.deployed == {"ship-1": "/"}


def test_only_its_own_application_is_deleted() -> None:
    serve = FakeServe({"theirs": "/theirs", "ship-2-poller": None, "ship": None})
    own = application(serve, "ship-1")
    own.run("ingress")
    own.delete()
    own.delete()
    assert serve.deployed == {"theirs": "/theirs", "ship-2-poller": None, "ship": None}


def test_what_ends_is_drained_first_and_once() -> None:
    serve, drained = FakeServe({"theirs": "/theirs"}), []
    own = application(serve, "ship-1")
    own.run("ingress")
    for _ in range(2):
        own.end(drained.append)
    assert (serve.deployed, drained) == ({"theirs": "/theirs"}, [own])


def test_half_of_a_deployment_that_failed_is_deleted() -> None:
    serve = FakeServe({"theirs": "/theirs"}, problem=RuntimeError("no GPU"))
    own = application(serve, "ship-1")
    with pytest.raises(ServeError, match="could not be deployed: no GPU"):
        own.run("ingress")
    own.delete()
    assert serve.deployed == {"theirs": "/theirs"}


TRACEBACK = """A replica failed to start with exception. Retrying 2 more time(s). Error:
ray::ServeReplica:ship:Engine.initialize_and_get_metadata() (pid=7, ip=127.0.0.1)
  File "/ship/backbone.py", line 210, in load_backbone
    raise BackboneError(
ship.errors.BackboneError: backbone 'vit_nosuch': no such timm model, folder or file
"""


def test_what_an_engine_says_is_told_without_its_traceback() -> None:
    serve = FakeServe(problem=RuntimeError("Deploying application ship-1 failed: Engine"), said=TRACEBACK)
    with pytest.raises(ServeError) as raised:
        application(serve, "ship-1").run("ingress")
    assert str(raised.value) == (
        "the endpoint could not be deployed: backbone 'vit_nosuch': no such timm model, folder or file"
    )


THERE = ServePlace(host="0.0.0.0", port=8000, is_own=False)


@pytest.mark.parametrize(("host", "port"), [("0.0.0.0", 8001), ("127.0.0.1", 8000), ("127.0.0.1", None)])
def test_another_address_than_that_of_the_clusters_proxy_is_refused(host: str, port: int | None) -> None:
    with pytest.raises(ServeError, match=r"listens at 0\.0\.0\.0:8000.*--host 0\.0\.0\.0 --port 8000"):
        check_place(THERE, host, port)


@pytest.mark.parametrize("port", [8000, None])
def test_the_address_of_the_clusters_proxy_is_taken(port: int | None) -> None:
    check_place(THERE, "0.0.0.0", port)
