"""Deployment files: the image's Dockerfile, the Swarm stack and its script, the Kubernetes manifests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from trainer.cli import run as run_command
from trainer.serving.__main__ import GRACEFUL_STOP_S
from trainer.serving.metrics import Metrics

PROJECT = Path(__file__).parents[1]
DEPLOY = PROJECT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
STACK = yaml.safe_load((DEPLOY / "stack.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile.jinja").read_text()


def test_image_label_keeps_special_characters() -> None:
    labels = {"trainer.dataset": 'folder:it\'s "$HOME" & \\$5 <é>', "trainer.test_accuracy": "0.5"}
    text = jinja2.Template(DOCKERFILE).render(__base_image__="python", __options__env=labels)
    (line,) = (line for line in text.splitlines() if line.startswith("LABEL "))
    # Between double quotes a shell reads backslashes and dollars as Docker does.
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert words.splitlines() == ["LABEL", *(f"{name}={value}" for name, value in labels.items())]


def rendered(folder: Path) -> list[dict[str, Any]]:
    """Output of `kustomize build` for a kustomization that has only `resources`."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) == {"apiVersion", "kind", "resources"}
    return [
        manifest for name in kustomization["resources"] for manifest in yaml.safe_load_all((folder / name).read_text())
    ]


def manifest_of(kind: str) -> dict[str, Any]:
    """The service's only manifest of this kind."""
    (found,) = (manifest for manifest in rendered(KUBERNETES) if manifest["kind"] == kind)
    return found


POD = manifest_of("Deployment")["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
SETTINGS = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}


@pytest.mark.parametrize("folder", [KUBERNETES, KUBERNETES / "sweep"], ids=lambda folder: folder.name)
def test_manifests_are_valid(folder: Path) -> None:
    manifests = rendered(folder)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    assert len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}) == len(manifests)


@pytest.mark.parametrize("folder", [KUBERNETES, KUBERNETES / "sweep"], ids=lambda folder: folder.name)
def test_kustomization_names_every_manifest(folder: Path) -> None:
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(file.name for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")


def test_autoscalers_ask_for_metrics_that_the_server_has(metrics: Metrics) -> None:
    """The adapter's rules give the autoscaler its metrics, from series of /metrics; KEDA asks for the same series."""
    adapter, autoscaler, keda = (
        yaml.safe_load((KUBERNETES / "queue" / f"{name}.yaml").read_text())
        for name in ("prometheus-adapter", "autoscaler", "keda")
    )
    kubernetes_validate.validate(autoscaler, kubernetes_validate.latest_version(), strict=True)
    for scaler in (autoscaler, keda):
        assert scaler["metadata"]["name"] == scaler["spec"]["scaleTargetRef"]["name"] == "classifier"
    by_cpu, *by_pods = autoscaler["spec"]["metrics"]
    assert [by_cpu] == manifest_of("HorizontalPodAutoscaler")["spec"]["metrics"]
    rules = adapter["rules"]["custom"]
    assert {metric["pods"]["metric"]["name"] for metric in by_pods} == {rule["name"]["as"] for rule in rules}
    series = set(re.findall(r"^(\w+)", metrics.render().decode(), re.MULTILINE))
    queries = [rule[key] for rule in rules for key in ("seriesQuery", "metricsQuery")]
    asked = [query["metadata"]["query"] for query in keda["spec"]["triggers"][1:]]
    for query in (*queries, *asked):
        names = set(re.findall(r"trainer_\w+", query))
        assert names
        assert names <= series
    limits = {metric["pods"]["metric"]["name"]: metric["pods"]["target"]["averageValue"] for metric in by_pods}
    assert limits == {"trainer_deadline_share": "250m", "trainer_queue_depth": "16"}
    assert [query["metadata"]["threshold"] for query in keda["spec"]["triggers"][1:]] == ["0.25", "16"]


def test_notice_names_every_package_of_the_image() -> None:
    """With traces. Only packages that are installed on the image's platform count."""
    lock = (PROJECT / "requirements-serve-tracing.lock").read_text()
    packages = [Requirement(line) for line in re.findall(r"^([a-z0-9].*?) \\$", lock, re.MULTILINE)]
    names = {package.name for package in packages if not package.marker or package.marker.evaluate()}
    assert len(names) > 50
    notice = (PROJECT / "NOTICE").read_text().lower()
    patterns = {name: rf"(?<![\w-]){name.replace('-', '[- ]')}(?![\w-])" for name in names}
    assert [name for name, pattern in patterns.items() if not re.search(pattern, notice)] == []


def test_sweep_nodes_find_their_head() -> None:
    manifests = rendered(KUBERNETES / "sweep")
    by_name = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    service = by_name["Service", "sweep-head"]["spec"]
    templates = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]
        for manifest in manifests
        if manifest["kind"] in ("Deployment", "Job")
    }
    assert set(templates) == {"sweep-head", "sweep-workers", "sweep"}
    assert service["selector"].items() <= templates["sweep-head"]["metadata"]["labels"].items()
    commands = {name: " ".join(pod["spec"]["containers"][0]["command"]) for name, pod in templates.items()}
    port = service["ports"][0]["port"]
    assert f"--head --block --num-cpus=0 --port={port} " in commands["sweep-head"]
    assert f"--address=sweep-head:{port} --block --num-cpus=4" in commands["sweep-workers"]
    assert f"--address=sweep-head:{port} --num-cpus=0" in commands["sweep"]
    (policy,) = (manifest["spec"] for manifest in manifests if manifest["kind"] == "NetworkPolicy")
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
    for template in templates.values():
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert {container["image"] for container in template["spec"]["containers"]} == {"trainer:latest"}
    access_modes = [item["spec"]["accessModes"] for item in manifests if item["kind"] == "PersistentVolumeClaim"]
    assert access_modes == [["ReadWriteOnce"]]


def test_sweep_driver_runs_a_valid_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = (manifest for manifest in rendered(KUBERNETES / "sweep") if manifest["kind"] == "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["command"][-1]
    words = shlex.split(script.partition("exec trainer ")[2].replace("/work/", f"{PROJECT}/"))
    monkeypatch.chdir(tmp_path)
    assert words[words.index("--cluster") + 1] == "auto"
    assert run_command([*words, "--cluster", "127.0.0.1:9"]) == 2
    assert capsys.readouterr().err.startswith("error: --cluster 127.0.0.1:9: ")  # the cluster is all that is missing


def test_invalid_manifest_is_rejected() -> None:
    deployment = manifest_of("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_selectors_of_all_manifests_match_the_same_pods() -> None:
    labels = POD["metadata"]["labels"].items()
    assert manifest_of("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest_of("Service")["spec"]["selector"].items() <= labels
    assert manifest_of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert manifest_of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    target = manifest_of("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifest_of("Deployment")["metadata"]["name"])
    port = CONTAINER["ports"][0]
    assert port["containerPort"] == 3000
    assert manifest_of("Service")["spec"]["ports"][0]["targetPort"] == port["name"]


def test_rollout_starts_a_new_pod_before_it_stops_an_old_one() -> None:
    assert manifest_of("Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert manifest_of("HorizontalPodAutoscaler")["spec"]["minReplicas"] >= 2
    assert STACK["services"]["classifier"]["deploy"]["replicas"] >= 2
    update = STACK["services"]["classifier"]["deploy"]["update_config"]
    assert (update["order"], update["failure_action"]) == ("start-first", "rollback")


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_probes_have_a_timeout(probe: str) -> None:
    """Until the server is ready, its port accepts connections but nothing answers."""
    assert 1 < CONTAINER[probe]["timeoutSeconds"] <= CONTAINER[probe]["periodSeconds"]


def test_pod_runs_without_privileges() -> None:
    user = int(re.findall(r"^USER (\d+)", DOCKERFILE, re.MULTILINE)[-1])
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["securityContext"]["runAsUser"] == user > 0
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    policy = manifest_of("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy  # so none is allowed


def test_kubernetes_grace_period_covers_the_drain() -> None:
    """Deadline < graceful shutdown; preStop + drain delay + graceful shutdown < grace period."""
    sleep = float(re.findall(r"sleep (\d+)", CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1])[0])
    deadline = float(SETTINGS["TRAINER_DEADLINE_MS"]) / 1000
    delay = float(SETTINGS["TRAINER_DRAIN_DELAY_S"])
    assert deadline < GRACEFUL_STOP_S
    assert sleep + delay + GRACEFUL_STOP_S < POD["spec"]["terminationGracePeriodSeconds"]
    readiness = CONTAINER["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < sleep  # not ready before the port closes
    assert SETTINGS["TRAINER_DRAIN_FILE"] in CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert Path(SETTINGS["TRAINER_DRAIN_FILE"]).is_relative_to(CONTAINER["volumeMounts"][0]["mountPath"])


def test_swarm_grace_period_covers_the_drain() -> None:
    """HAProxy's failed checks < drain delay; deadline < graceful shutdown; both within the grace period."""
    service = STACK["services"]["classifier"]
    interval, falls = re.findall(r"inter (\d+)ms fall (\d+)", (DEPLOY / "haproxy.cfg").read_text())[0]
    delay = float(service["environment"]["TRAINER_DRAIN_DELAY_S"])
    assert float(interval) / 1000 * int(falls) < delay
    assert float(service["environment"]["TRAINER_DEADLINE_MS"]) / 1000 < GRACEFUL_STOP_S
    assert delay + GRACEFUL_STOP_S < float(service["stop_grace_period"].removesuffix("s"))


def test_documented_canary_is_a_separate_deployment() -> None:
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"^(sed .*?) \| kubectl apply", text, re.MULTILINE | re.DOTALL)
    result = subprocess.run(["bash", "-c", command], cwd=DEPLOY.parent, capture_output=True, text=True, check=True)
    canary = yaml.safe_load(result.stdout)
    kubernetes_validate.validate(canary, kubernetes_validate.latest_version(), strict=True)
    labels = canary["spec"]["template"]["metadata"]["labels"]
    assert canary["metadata"]["name"] != manifest_of("Deployment")["metadata"]["name"]
    assert canary["spec"]["selector"]["matchLabels"] == labels
    assert manifest_of("Service")["spec"]["selector"].items() <= labels.items()
    assert not manifest_of("Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert canary["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":2")


# Stand-in for Docker: STATE is the status of the last update, RUNNING the deployed image; classifier:1 has the model
# photos:1.
DOCKER = """#!/bin/sh
for last; do :; done
case "$*" in
"image inspect --format"*) echo "photos:${last#classifier:}" ;;
"image inspect classifier:"*) ;;
"image inspect"*) exit 1 ;;
pull*) echo "pull access denied" >&2; exit 1 ;;
*LocalNodeState*) echo active ;;
"service inspect"*) [ "$RUNNING" ] || exit 1 ;;
esac
case "$*" in
"service inspect"*UpdateStatus*) echo "$STATE" ;;
"service inspect"*PreviousSpec*) echo classifier:1@sha256:1 ;;
"service inspect"*) echo "$RUNNING" ;;
esac
"""


# Stand-in for `trainer compare`: photos:2 is worse than photos:1.
COMPARE = """#!/bin/sh
echo "$#: $*"
[ "$3" != photos:2 ] || exit 4
"""


@pytest.mark.parametrize(
    ("arguments", "running", "state", "code", "output"),
    [
        ("deploy", "", "", 2, "error: name the image"),
        ("deploy nope:1", "", "", 2, "pull access denied\nerror: there is no image nope:1 here"),
        ("deploy classifier:2", "classifier:2", "rollback_completed", 1, "error: classifier:2 is not ready"),
        ("rollout classifier:2", "", "", 2, "error: nothing is deployed as trainer"),
        ("rollout classifier:2", "classifier:1", "completed", 0, "from classifier:1 to classifier:2"),
        ("rollout classifier:1", "classifier:1", "", 0, "from classifier:1 to classifier:1"),
        ("rollout classifier:2", "classifier:1", "updating", 1, "error: the update to classifier:2 is not finished"),
        ("rollout classifier:2", "classifier:1", "rollback_completed", 1, "classifier:1 still runs; why"),
        ("rollback", "classifier:2@sha256:2", "completed", 0, "from classifier:2 to classifier:1,"),
        ("rollback", "classifier:2", "updating", 0, "from classifier:2 to classifier:1,"),
        ("rollback", "classifier:1", "", 1, "error: no rollout yet, classifier:1 is the first"),
        ("rollback", "classifier:1", "rollback_completed", 1, "is already rolled back, to classifier:1"),
    ],
)
def test_swarm_script_reports_the_outcome(
    arguments: str, running: str, state: str, code: int, output: str, tmp_path: Path
) -> None:
    variables = {"RUNNING": running, "STATE": state, "TIMEOUT_S": "3"}
    done = run_swarm(tmp_path, arguments, variables)
    assert done.returncode == code
    assert output in done.stdout + done.stderr


def run_swarm(folder: Path, arguments: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run deploy/swarm with the stand-ins, which are written into `folder`."""
    for name, script in (("docker", DOCKER), ("trainer", COMPARE)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "TRAINER": str(folder / "trainer"), **variables}
    command = [str(DEPLOY / "swarm"), *arguments.split()]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_a_rollout_with_a_data_set_refuses_a_worse_model(tmp_path: Path) -> None:
    variables = {"RUNNING": "classifier:1", "STATE": "completed", "COMPARE": "folder:my photos"}
    better = run_swarm(tmp_path, "rollout classifier:3", variables)
    assert (better.returncode, better.stderr) == (0, "")
    compared, rolled_out = better.stdout.splitlines()
    assert compared == "5: compare photos:1 photos:3 --dataset folder:my photos"
    assert rolled_out == "from classifier:1 to classifier:3, half a minute"
    worse = run_swarm(tmp_path, "rollout classifier:2", variables)
    assert (worse.returncode, worse.stdout) == (4, "5: compare photos:1 photos:2 --dataset folder:my photos\n")
    assert worse.stderr == (
        "error: classifier:2 is not rolled out, classifier:1 still runs; without COMPARE=… it would be\n"
    )
