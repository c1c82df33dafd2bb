"""The definitions for systemd, cron and Kubernetes: what they name exists, and what they start is a night."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from sparkrec.errors import UserError
from sparkrec.makelog import LogOptions, make_log
from sparkrec.pipeline.nightly import parse_run_date
from sparkrec.settings.config import load_config
from sparkrec.spark.jars import delta_jars
from tests.nights import Place
from tests.quick import QUICK

ROOT = Path(__file__).resolve().parents[1]
SYSTEMD, KUBERNETES = ROOT / "infra" / "systemd", ROOT / "infra" / "kubernetes"
SERVICE, TIMER = SYSTEMD / "sparkrec-nightly.service", SYSTEMD / "sparkrec-nightly.timer"
UNREACHABLE = {"enabled": True, "k": 10, "below_popularity": -50}


def unit(path):
    """The settings of a unit file, each with all its values."""
    found = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def today():
    return datetime.now(UTC).date()


def test_yesterday_is_the_last_day_that_is_over():
    before, told, after = today(), parse_run_date("yesterday"), today()
    assert told in (before - timedelta(days=1), after - timedelta(days=1))
    # A day apart, whatever the hour: 14 hours ahead of UTC and 11 behind.
    assert parse_run_date("yesterday", "Pacific/Kiritimati") - parse_run_date("yesterday", "Pacific/Niue") in (
        timedelta(days=1),
        timedelta(days=2),  # in an hour of each day
    )
    with pytest.raises(UserError, match="or yesterday"):
        parse_run_date("tomorrow")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_knows_every_line_of_the_units(tmp_path):
    for path in (SERVICE, TIMER):
        text = path.read_text().replace("/opt/sparkrec/.venv/bin", f"{sys.prefix}/bin")
        (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "sparkrec" in line]
    assert (done.returncode, ours) == (0, [])


def test_exit_codes_mean_the_same_to_systemd():
    service = unit(SERVICE)
    assert service["SuccessExitStatus"] == ["3 143"]
    assert service["RestartPreventExitStatus"] == ["2"]
    assert service["NoNewPrivileges"] == ["true"]
    assert service["ProtectSystem"] == ["strict"]


@pytest.mark.parametrize("settings", [SYSTEMD / "night.yaml", KUBERNETES / "night.yaml"])
def test_settings_that_are_shipped_are_valid(settings):
    config = load_config(str(settings), [])
    assert config.logs.path
    assert config.warehouse.path
    assert config.train.snapshot_files % config.train.ranks == 0


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory):
    """``run(command, gate=…)``: a scheduler's command with this machine's paths in it, to its end; and its place.

    The log goes on to today, so that the night has to leave events out.
    """
    folder = tmp_path_factory.mktemp("scheduled")
    first, days = today() - timedelta(days=5), 6
    make_log(LogOptions("invoices", 1200, users=60, items=40, days=days, start=first), folder / "made")
    place = Place(folder / "made" / "log", folder / "warehouse", "invoices", first, days)
    (folder / "sparkrec").mkdir()
    paths = {"/opt/sparkrec/.venv/bin": f"{sys.prefix}/bin", "/etc/sparkrec": str(folder), "/var/log": str(folder)}

    def run(command, gate=None, env=None):
        quick = place.settings("models=[als]", "prepare.text.method=none")
        settings = OmegaConf.to_container(OmegaConf.from_dotlist(quick))
        settings = {**yaml.safe_load((SYSTEMD / "night.yaml").read_text()), **settings}
        settings["spark"]["conf"] |= {**QUICK, "spark.driver.memory": "1g"}
        (folder / "night.yaml").write_text(json.dumps({**settings, **({"gate": gate} if gate else {})}))
        for theirs, ours in paths.items():
            command = [part.replace(theirs, ours) for part in command]
        env = {**os.environ, **(env or {})}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=800)

    return run, place


@pytest.fixture(scope="module")
def night_of_the_unit(scheduled):
    """The night that the service's command runs, and the days that were yesterday meanwhile."""
    run, place = scheduled
    before = today()
    (command,) = unit(SERVICE)["ExecStart"]
    done = run(shlex.split(command))
    assert done.returncode == 0, done.stderr[-4000:]
    return place, {before - timedelta(days=1), today() - timedelta(days=1)}


@pytest.mark.slow
def test_the_services_command_publishes_yesterdays_night(night_of_the_unit):
    place, yesterdays = night_of_the_unit
    (published,) = place.table("topk_als")["run_date"].unique().to_list()
    assert published in yesterdays
    assert place.table("interactions")["ts"].max().date() <= published < place.last


@pytest.mark.slow
def test_crons_line_runs_the_same_night_and_tells_its_exit_code(night_of_the_unit, scheduled):
    run, place = scheduled
    before = place.table("topk_als")
    (line,) = re.findall(r"^\d.*$", (SYSTEMD / "sparkrec.cron").read_text(), re.M)
    *when, user, command = line.split(" ", 6)
    assert (len(when), user) == (5, "sparkrec")
    done = run(["/bin/sh", "-c", command], gate=UNREACHABLE)
    assert done.returncode == 3
    assert done.stdout + done.stderr == ""  # else cron would send mail
    assert "below recent popularity's" in (place.warehouse.parent / "sparkrec" / "night.log").read_text()
    assert place.table("topk_als").equals(before)


def start_in_image(scheduled, *arguments, gate=None, **env):
    """infra/kubernetes/entrypoint.sh with this machine's Spark and Python for the image's."""
    import pyspark

    run, place = scheduled
    env |= {
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "PYSPARK_PYTHON": sys.executable,
        "TERMINATION_LOG": str(place.warehouse.parent / "termination"),
    }
    return run([str(KUBERNETES / "entrypoint.sh"), *arguments], gate=gate, env=env)


@pytest.mark.slow
def test_a_driver_pod_ends_well_after_a_model_was_held_back_and_fails_after_a_mistake(
    night_of_the_unit, scheduled, tmp_path
):
    place = scheduled[1]
    spec = yaml.safe_load((KUBERNETES / "nightly.yaml").read_text())["spec"]["template"]
    job = spec["mainApplicationFile"].replace("/opt/sparkrec", str(ROOT))
    properties = tmp_path / "spark.properties"
    jars = ",".join(map(str, delta_jars()))
    given = {"spark.master": "local[2]", "spark.jars": jars, "spark.driver.host": "127.0.0.1", **QUICK}
    properties.write_text("".join(f"{name} {value}\n" for name, value in given.items()))
    options = ["--properties-file", str(properties), "--class", "org.apache.spark.deploy.PythonRunner", job]
    before, bind = place.table("topk_als"), {"SPARK_DRIVER_BIND_ADDRESS": "127.0.0.1"}
    held = start_in_image(scheduled, "driver", *options, *spec["arguments"], gate=UNREACHABLE, **bind)
    assert held.returncode == 0, held.stderr[-4000:]
    assert "the gate held a model back" in (place.warehouse.parent / "termination").read_text()
    assert place.table("runs").sort("ended_at")["status"][-1] == "held_back"
    assert place.table("topk_als").equals(before)
    wrong = start_in_image(scheduled, "driver", *options, *spec["arguments"], "als.rnak=8", **bind)
    assert wrong.returncode == 2
    assert re.search("^sparkrec: .*als.rnak", wrong.stdout, re.M)  # Spark sends both streams of Python there


@pytest.mark.slow
def test_an_executor_pod_starts_sparks_backend(scheduled):
    java = os.environ.get("JAVA_HOME") or str(Path(shutil.which("java")).resolve().parents[1])
    env = {
        "JAVA_HOME": java,
        "SPARK_JAVA_OPT_0": "-Dspark.rpc.askTimeout=5s",
        "SPARK_JAVA_OPT_1": "-Dname=two words",
        "SPARK_EXECUTOR_MEMORY": "64m",
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:9",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "exec-1",
    }
    done = start_in_image(scheduled, "executor", **env)
    assert done.returncode == 1
    assert "Failed to connect to /127.0.0.1:9" in done.stdout + done.stderr
    assert start_in_image(scheduled, "printf", "%s", "as it stands").stdout == "as it stands"


def test_the_operators_resource_fits_the_repository_and_its_own_parts():
    manifests = {
        (document["kind"], document["metadata"]["name"]): document
        for file in ("rbac.yaml", "storage.yaml", "nightly.yaml")
        for document in yaml.safe_load_all((KUBERNETES / file).read_text())
    }
    spec = manifests["ScheduledSparkApplication", "sparkrec-nightly"]["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "UTC")
    template = spec["template"]
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    shipped = dict(line.split() for line in lines if line and not line.startswith("#"))
    assert shipped.items() <= template["sparkConf"].items()
    assert f"pyspark=={template['sparkVersion']} \\" in (ROOT / "infra" / "requirements.lock").read_text().splitlines()
    assert (ROOT / template["mainApplicationFile"].removeprefix("local:///opt/sparkrec/")).is_file()
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    (settings,) = kustomization["configMapGenerator"]
    assert template["driver"]["configMaps"] == [{"name": settings["name"], "path": "/etc/sparkrec"}]
    assert template["arguments"][:2] == ["--conf", f"/etc/sparkrec/{settings['files'][0]}"]
    assert {*kustomization["resources"], *settings["files"]} <= {path.name for path in KUBERNETES.iterdir()}
    assert ("PersistentVolumeClaim", template["volumes"][0]["persistentVolumeClaim"]["claimName"]) in manifests
    config = load_config(str(KUBERNETES / settings["files"][0]), [])
    assert config.train.ranks <= template["executor"]["instances"] * template["executor"]["cores"]
    assert template["restartPolicy"]["onFailureRetryInterval"] > config.warehouse.lock_expiry_s
    uid = f"--uid {template['driver']['podSecurityContext']['runAsUser']} "
    assert uid in (KUBERNETES / "Dockerfile").read_text()
    for pod in (template["driver"], template["executor"]):
        assert ("ServiceAccount", pod["serviceAccount"]) in manifests
        assert pod["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]


def test_the_image_takes_what_the_checkout_has_and_its_set_up_needs():
    dockerfile = (KUBERNETES / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.M) for name in line.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    kept = {line[1:] for line in (KUBERNETES / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert kept == copied
    setup = (ROOT / "infra" / "setup.sh").read_text()
    inputs = re.search(r"INPUTS=\(([^)]*)\)", setup)[1].split()
    assert {name.split("/")[0] for name in inputs} <= copied
    entry = re.search(r"^ENTRYPOINT (.*)$", dockerfile, re.M)[1]
    assert os.access(ROOT / Path(json.loads(entry)[-1]).relative_to("/opt/sparkrec"), os.X_OK)
