"""What kustomize and Helm make of deploy/kubernetes and deploy/helm, as objects."""

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

__all__ = ["CRDS", "DEPLOY", "Manifest", "containers", "crd_validator", "kustomize", "pod_specs", "template"]

Manifest = dict[str, Any]
DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
# KubeRay's custom resource definitions, as its release has them; not in this repository.
CRDS = Path(os.environ.get("KUBERAY_CRDS", DEPLOY.parents[1] / "shared" / "crds"))
_PATIENCE_S = 120.0


def kustomize(folder: str | Path) -> list[Manifest]:
    """The objects of a folder below deploy/kubernetes, or of any other folder."""
    return _run("kubectl", "kustomize", str(DEPLOY / "kubernetes" / folder))


def template(*options: str) -> list[Manifest]:
    """The objects of the chart with these options of ``helm template``."""
    return _run("helm", "template", "ship", str(DEPLOY / "helm" / "ship"), *options)


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


def _run(*command: str) -> list[Manifest]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found is not None]
