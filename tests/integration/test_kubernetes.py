"""The manifests in deploy/kubernetes: valid for Kubernetes, and right about the service."""

from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import msgspec
import pytest
import yaml

from app.environment import read_settings
from app.server import serve
from app.settings import Settings, SettingsError
from tests.support.process import ServiceProcess

DIRECTORY = Path(__file__).parents[2] / "deploy" / "kubernetes"
EXAMPLE = "secret.example.yaml"
# The oldest they are for, and the newest that is known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
NAME = "millrace"
LABELS = {"app.kubernetes.io/name": NAME}
SECRET = "at-least-thirty-two-bytes-of-secret"

Manifest = dict[str, Any]


def load(name: str) -> Manifest:
    (manifest,) = yaml.safe_load_all((DIRECTORY / name).read_text("utf-8"))
    assert isinstance(manifest, dict)
    return manifest


KUSTOMIZATION = load("kustomization.yaml")
FILES = [*KUSTOMIZATION["resources"], EXAMPLE]
POD = load("deployment.yaml")["spec"]["template"]["spec"]
(CONTAINER,), (MIGRATE,) = POD["containers"], POD["initContainers"]
CONFIG, SECRETS = load("configmap.yaml")["data"], load(EXAMPLE)["stringData"]


def environment(container: Manifest, secrets: dict[str, str]) -> dict[str, str]:
    """The environment a container has, in a pod of the name pod-1."""
    found: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        assert each == {"configMapRef": {"name": NAME}}
        found |= CONFIG
    for each in container["env"]:
        source = each.get("valueFrom", {})
        if "value" in each:
            found[each["name"]] = each["value"]
        elif "fieldRef" in source:
            assert source["fieldRef"] == {"fieldPath": "metadata.name"}
            found[each["name"]] = "pod-1"
        else:
            assert source["secretKeyRef"]["name"] == NAME
            found[each["name"]] = secrets[source["secretKeyRef"]["key"]]
    return found


def test_every_file_is_listed_but_for_the_example_of_a_secret() -> None:
    assert sorted(FILES) == sorted(
        path.name for path in DIRECTORY.iterdir() if path.name != "kustomization.yaml"
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(load(name), version, strict=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "Nothing"),
        (("spec", "replicas"), "three"),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet", "url"), "/livez"),
    ],
)
def test_one_that_is_not_is_refused(path: tuple[str | int, ...], value: object) -> None:
    manifest = load("deployment.yaml")
    *parents, last = path
    place: Any = manifest
    for each in parents:
        place = place[each]
    place[last] = value
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError)):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


def test_all_are_of_one_name_and_find_the_pods() -> None:
    manifests = {each["kind"]: each for each in map(load, FILES)}
    assert {each["metadata"]["name"] for each in manifests.values()} == {NAME}
    deployment = manifests["Deployment"]["spec"]
    assert deployment["template"]["metadata"]["labels"].items() >= LABELS.items()
    assert manifests["Service"]["spec"]["selector"] == LABELS
    for selector in (
        deployment["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"],
        *(each["labelSelector"] for each in POD["topologySpreadConstraints"]),
    ):
        assert selector == {"matchLabels": LABELS}
    scaling = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaling["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert scaling["minReplicas"] == deployment["replicas"] == 3
    assert [each["name"] for each in KUSTOMIZATION["images"]] == [NAME]


@pytest.mark.parametrize("container", [CONTAINER, MIGRATE])
def test_a_container_has_no_more_rights_than_it_needs(container: Manifest) -> None:
    assert container["image"] == NAME
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def test_a_pod_has_the_time_that_the_service_takes_to_end() -> None:
    needed = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"] + serve._DRAIN_SECONDS
    assert POD["terminationGracePeriodSeconds"] > needed + serve._CLOSE_SECONDS


@pytest.mark.parametrize("container", [CONTAINER, MIGRATE])
def test_every_variable_is_a_setting_that_is_accepted(container: Manifest) -> None:
    given = environment(container, {**SECRETS, "JWT_SECRET": SECRET})
    assert given.keys() <= {field.encode_name for field in msgspec.structs.fields(Settings)}
    read_settings(given)


def test_no_setting_is_a_secret_in_the_open_nor_a_secret_known_to_all() -> None:
    assert CONFIG.keys().isdisjoint(SECRETS)
    with pytest.raises(SettingsError, match="JWT_SECRET"):
        read_settings(environment(CONTAINER, SECRETS))


def test_the_probes_ask_what_is_answered_to_anyone() -> None:
    (port,) = CONTAINER["ports"]
    assert str(port["containerPort"]) == CONFIG["PORT"]
    (exposed,) = load("service.yaml")["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    given = environment(CONTAINER, {**SECRETS, "JWT_SECRET": SECRET, "DATABASE_URL": "memory://"})
    own = {"HOST": "127.0.0.1", "PORT": "0", "REDIS_URL": "", "NODE_ID": ""}
    with ServiceProcess({**given, **own}) as service, service.client() as client:
        paths = []
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert CONTAINER[kind]["httpGet"]["port"] == port["name"]
            paths.append(CONTAINER[kind]["httpGet"]["path"])
            assert client.get(paths[-1]).status_code == httpx.codes.OK
        assert client.get("/stats").status_code == httpx.codes.UNAUTHORIZED
    assert paths == ["/livez", "/readyz", "/livez"]
