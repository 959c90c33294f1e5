"""deploy/kubernetes and deploy/helm: rendered offline, and checked against the schemas of what reads them."""

import importlib
import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.unit.deploy.manifests import (
    CRDS,
    DEPLOY,
    Manifest,
    containers,
    crd_validator,
    find_missing,
    helm,
    kustomize,
    pod_specs,
    template,
)

FOLDERS = ["overlays/cpu", "overlays/gpu", "overlays/ha", "overlays/airgap", "tuning", "nightly"]
KUBERNETES = ["1.29", "1.34", "1.37"]
HASHED = re.compile(r"(ship|ship-manifest)-[a-z0-9]{10}")
OURS = ("ray.io/v1", "monitoring.coreos.com/v1")
ALL_ON = ("--set", "tuning.enabled=true,monitoring.enabled=true,endpoint.redis.address=redis:6379")
pytestmark = pytest.mark.skipif(find_missing() is not None, reason=str(find_missing()))
needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"no KubeRay definitions in {CRDS}; set KUBERAY_CRDS to a folder with them"
)


def kinds(manifests: list[Manifest]) -> list[str]:
    return sorted(f"{found['kind']}/{found['metadata']['name']}" for found in manifests)


def the(manifests: list[Manifest], kind: str, name: str = "ship") -> Manifest:
    [found] = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """The objects of each folder, of the monitored endpoint, and of the chart."""
    # kustomize takes no absolute path, and both ends of a relative one must be real.
    folder = tmp_path_factory.mktemp("monitored").resolve()
    up = "../" * (len(folder.parts) - 1)
    (folder / "kustomization.yaml").write_text(
        f"resources: [{up}{DEPLOY.relative_to('/')}/kubernetes/overlays/cpu]\n"
        f"components: [{up}{DEPLOY.relative_to('/')}/kubernetes/components/monitoring]\n"
    )
    manifest = (DEPLOY / "kubernetes" / "tuning" / "lines.yaml").read_text()
    (folder / "values.yaml").write_text(yaml.safe_dump({"tuning": {"manifest": manifest}}))
    return {
        **{name: kustomize(name) for name in FOLDERS},
        "monitored": kustomize(folder),
        "chart": template(),
        "chart, all on": template("-f", str(folder / "values.yaml"), *ALL_ON),
    }


def test_kinds_of_kubernetes_are_valid_and_no_key_is_misspelt(rendered: dict[str, list[Manifest]]) -> None:
    found = [m for manifests in rendered.values() for m in manifests if m["apiVersion"] not in OURS]
    assert {m["kind"] for m in found} == {
        "ConfigMap",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "ServiceAccount",
    }
    for version in KUBERNETES:
        for manifest in found:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_refuses_a_misspelt_key(rendered: dict[str, list[Manifest]]) -> None:
    wrong = json.loads(json.dumps(the(rendered["overlays/cpu"], "PodDisruptionBudget", "ship-workers")))
    wrong["spec"]["maxUnavailible"] = wrong["spec"].pop("maxUnavailable")
    with pytest.raises(kubernetes_validate.ValidationError, match="maxUnavailible"):
        kubernetes_validate.validate(wrong, KUBERNETES[0], strict=True)


@needs_crds
def test_kinds_of_kuberay_are_valid_and_no_key_is_misspelt(rendered: dict[str, list[Manifest]]) -> None:
    found = [m for manifests in rendered.values() for m in manifests if m["apiVersion"] == "ray.io/v1"]
    assert {m["kind"] for m in found} == {"RayService", "RayJob", "RayCronJob"}
    for manifest in found:
        crd_validator(manifest["kind"]).validate(manifest)
    wrong = json.loads(json.dumps(found[0]))
    wrong["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        crd_validator("RayService").validate(wrong)


def test_pods_of_ray_are_valid_pods(rendered: dict[str, list[Manifest]]) -> None:
    num_pods = 0
    for manifests in rendered.values():
        for manifest in manifests:
            if manifest["apiVersion"] != "ray.io/v1":
                continue
            for spec in pod_specs(manifest):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, "spec": spec}
                kubernetes_validate.validate(pod, KUBERNETES[0], strict=True)
                num_pods += 1
    assert num_pods >= 2 * len(rendered), "a head and workers of each"


def test_every_container_is_as_the_restricted_standard_wants_it(rendered: dict[str, list[Manifest]]) -> None:
    for manifests in rendered.values():
        for manifest in (m for m in manifests if m["apiVersion"] == "ray.io/v1"):
            for spec in pod_specs(manifest):
                assert spec["securityContext"]["runAsNonRoot"] is True
                assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in containers(manifest):
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                written = {mount["mountPath"] for mount in container["volumeMounts"]}
                assert {"/tmp", "/home/ship"} <= written
                # KubeRay's own run wget, which the image has not.
                assert "httpGet" in container["readinessProbe"]
                assert "httpGet" in container["livenessProbe"]
                assert (
                    container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
                )


def test_no_secret_is_in_a_file(rendered: dict[str, list[Manifest]]) -> None:
    for manifests in rendered.values():
        assert "Secret" not in {m["kind"] for m in manifests}
        for manifest in (m for m in manifests if m["apiVersion"] == "ray.io/v1"):
            for container in containers(manifest):
                assert [
                    source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source
                ] == ["ship-credentials"]
                for variable in container["env"]:
                    assert not any(word in variable["name"] for word in ("SECRET", "PASSWORD", "TOKEN"))


def test_ray_is_the_version_that_the_package_pins(rendered: dict[str, list[Manifest]]) -> None:
    pins = dict(
        line.split("==")
        for line in (DEPLOY.parent / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for manifests in rendered.values():
        for manifest in (m for m in manifests if m["apiVersion"] == "ray.io/v1"):
            job = manifest["spec"].get("jobTemplate", manifest["spec"])
            cluster = job.get("rayClusterConfig") or job["rayClusterSpec"]
            assert cluster["rayVersion"] == pins["ray"]
            assert cluster["authOptions"] == {"mode": "token"}
            assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_application_of_the_service_is_one_that_ray_serve_builds(
    rendered: dict[str, list[Manifest]],
) -> None:
    for name in ("overlays/cpu", "overlays/gpu", "overlays/ha", "overlays/airgap", "chart"):
        config = ServeDeploySchema.model_validate(
            yaml.safe_load(the(rendered[name], "RayService")["spec"]["serveConfigV2"])
        )
        assert config.http_options.host == "0.0.0.0"
        [application] = config.applications
        module, _, attribute = application.import_path.partition(":")
        build: Any = getattr(importlib.import_module(module), attribute)
        [annotation] = [kind for key, kind in build.__annotations__.items() if key != "return"]
        annotation.model_validate({"store": "s3://models/ship", **application.args})


def test_all_nodes_have_haproxy_or_none(rendered: dict[str, list[Manifest]]) -> None:
    for name in ("overlays/cpu", "overlays/gpu", "overlays/ha", "overlays/airgap", "chart"):
        for container in containers(the(rendered[name], "RayService")):
            assert {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"} in container["env"]


def test_configuration_is_named_by_its_content_wherever_it_is_used(
    rendered: dict[str, list[Manifest]],
) -> None:
    for name in FOLDERS:
        [config] = [m for m in rendered[name] if m["kind"] == "ConfigMap" and "SHIP_STORE" in m["data"]]
        for manifest in (m for m in rendered[name] if m["apiVersion"] == "ray.io/v1"):
            for container in containers(manifest):
                assert container["envFrom"][0] == {"configMapRef": {"name": config["metadata"]["name"]}}


def test_the_nightly_job_is_the_job_of_the_day(rendered: dict[str, list[Manifest]]) -> None:
    night = the(rendered["nightly"], "RayCronJob", "ship-nightly")
    assert night["spec"]["jobTemplate"] == the(rendered["tuning"], "RayJob", "ship-tune")["spec"]
    assert "RayJob" not in {m["kind"] for m in rendered["nightly"]}


def test_policies_select_the_pods_that_there_are(rendered: dict[str, list[Manifest]]) -> None:
    for name in FOLDERS:
        pods = []
        for manifest in (m for m in rendered[name] if m["apiVersion"] == "ray.io/v1"):
            job = manifest["spec"].get("jobTemplate", manifest["spec"])
            cluster = job.get("rayClusterConfig") or job["rayClusterSpec"]
            pods.append(
                {**cluster["headGroupSpec"]["template"]["metadata"]["labels"], "ray.io/node-type": "head"}
            )
            pods += [
                {**group["template"]["metadata"]["labels"], "ray.io/node-type": "worker"}
                for group in cluster["workerGroupSpecs"]
            ]
        for manifest in rendered[name]:
            spec = manifest.get("spec", {})
            selector = (
                spec.get("podSelector") if manifest["kind"] == "NetworkPolicy" else spec.get("selector")
            )
            if selector is not None:
                wanted = selector["matchLabels"].items()
                assert any(wanted <= labels.items() for labels in pods), manifest["metadata"]["name"]


def test_the_chart_renders_what_the_overlay_does(rendered: dict[str, list[Manifest]]) -> None:
    assert plain(rendered["chart"]) == plain(rendered["overlays/cpu"])


def test_the_chart_with_all_on_has_what_the_folders_have(rendered: dict[str, list[Manifest]]) -> None:
    chart = plain(rendered["chart, all on"])
    night, monitored = plain(rendered["nightly"]), plain(rendered["monitored"])
    assert chart.keys() == night.keys() | monitored.keys()
    assert chart["RayCronJob/ship-nightly"] == night["RayCronJob/ship-nightly"]
    assert chart["PodMonitor/ship"] == monitored["PodMonitor/ship"]
    assert chart["PrometheusRule/ship"] == monitored["PrometheusRule/ship"]
    assert chart["NetworkPolicy/ship-monitoring"] == monitored["NetworkPolicy/ship-monitoring"]


def plain(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Objects by kind and name, without what tells kustomize's from Helm's, such as hashes in names."""
    text = json.dumps(manifests)
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "ConfigMap" and (hashed := HASHED.fullmatch(name)):
            text = text.replace(name, hashed.group(1))
    found = {}
    for manifest in json.loads(text):
        if manifest["apiVersion"] == "ray.io/v1":
            job = manifest["spec"].get("jobTemplate", manifest["spec"])
            cluster = job.get("rayClusterConfig") or job["rayClusterSpec"]
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
                group["template"]["metadata"].pop("annotations", None)
                for container in group["template"]["spec"]["containers"]:
                    container.pop("imagePullPolicy", None)
            if "serveConfigV2" in manifest["spec"]:
                manifest["spec"]["serveConfigV2"] = yaml.safe_load(manifest["spec"]["serveConfigV2"])
        found[f"{manifest['kind']}/{manifest['metadata']['name']}"] = manifest
    return found


@pytest.mark.parametrize(
    "option",
    [
        "endpoint.workerz.min=1",
        "image.tagg=x",
        "environment.AWS_SECRET_ACCESS_KEY=x",
        "endpoint.redis.address=redis",
    ],
)
def test_the_chart_refuses_values_that_it_does_not_know(option: str) -> None:
    done = helm("--set", option)
    assert done.returncode != 0
    assert "schema" in done.stderr


def test_the_operator_gets_the_rules_that_prometheus_gets(rendered: dict[str, list[Manifest]]) -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
    assert the(rendered["monitored"], "PrometheusRule")["spec"] == rules
