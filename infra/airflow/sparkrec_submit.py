"""The spark-submit line of a night, from what a site says about itself. No Airflow in here, and no shell.

It lies beside ``sparkrec_nightly.py`` in Airflow's DAG folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

MASTER = re.compile(r"local(\[[\d*,]+\])?|yarn|(spark|k8s)://\S+")
SPARK_KEY = re.compile(r"spark\.[\w.-]+")
SETTING = re.compile(r"[a-z_][a-z0-9_.]*=.*")
# What belongs to Airflow's own Python and to its secrets is not the night's.
NOT_HANDED_ON = re.compile(r"_*AIRFLOW|PYTHON|PYSPARK|SPARK_HOME$|VIRTUAL_ENV$")


@dataclass(frozen=True)
class Site:
    """Where things are, and how the night is to run.

    Attributes:
        checkout: Absolute path of sparkrec's checkout on the machine that submits, with ``dist/sparkrec.zip``.
        master: Spark's master, e.g. ``spark://HOST:7077`` or ``yarn``.
        environment: The Python environment of the set-up.
        conf: The night's environment file; relative to the checkout.
        properties_file: For spark-submit; relative to the checkout.
        spark_conf: Further settings of Spark: memory, cores, where the workers' Python lies.
        settings: ``key=value`` as on the command line: ``logs.path=…``, ``warehouse.path=…``.
    """

    checkout: str
    master: str
    environment: str = ".venv"
    conf: str = "conf/cluster.yaml"
    properties_file: str = "conf/spark-defaults.conf"
    spark_conf: Mapping[str, str] = field(default_factory=dict)
    settings: Sequence[str] = ()

    def path(self, name: str) -> str:
        """A path of the checkout; absolute ones stay as they are."""
        return str(Path(self.checkout) / name)

    def program(self, name: str) -> str:
        """A program of the environment."""
        return self.path(f"{self.environment}/bin/{name}")


def read_site(data: Any) -> Site:
    """The site from the JSON object of the Airflow Variable.

    Raises:
        ValueError: It is not one; in one line, with the key.
    """
    if not isinstance(data, dict):
        raise ValueError("the Variable is not a JSON object")
    known = [f.name for f in fields(Site)]
    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"unknown key {', '.join(unknown)}: one of {', '.join(known)}")
    if missing := [name for name in ("checkout", "master") if not data.get(name)]:
        raise ValueError(f"{' and '.join(missing)} missing")
    for name in ("checkout", "master", "environment", "conf", "properties_file"):
        if not _is_plain(data.get(name, "")) or data.get(name, "").startswith("-"):
            raise ValueError(f"{name} is not a plain text: {data[name]!r}")
    if not Path(data["checkout"]).is_absolute():
        raise ValueError(f"checkout is not an absolute path: {data['checkout']}")
    if not MASTER.fullmatch(data["master"]):
        raise ValueError(f"master is not spark://HOST:PORT, yarn, k8s://URL or local[N]: {data['master']}")
    return Site(**{**data, "spark_conf": _spark_conf(data), "settings": _settings(data)})


def _spark_conf(data: Mapping[str, Any]) -> dict[str, str]:
    given = data.get("spark_conf", {})
    if not isinstance(given, dict):
        raise ValueError("spark_conf is not an object of spark.… and values")
    for key, value in given.items():
        if not SPARK_KEY.fullmatch(key) or not _is_plain(value):
            raise ValueError(f"spark_conf has {key!r}: {value!r}, which is not spark.… and a text")
    if given.get("spark.submit.deployMode", "client") != "client":
        raise ValueError("spark.submit.deployMode is not client: the night's exit code would not come back")
    return dict(given)


def _settings(data: Mapping[str, Any]) -> tuple[str, ...]:
    given = data.get("settings", [])
    if not isinstance(given, list):
        raise ValueError("settings is not a list of key=value")
    for setting in given:
        if not _is_plain(setting) or not SETTING.fullmatch(setting):
            raise ValueError(f"settings has {setting!r}, which is not key=value")
    return tuple(given)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def night_before(data_interval_end: datetime) -> date:
    """The last day (UTC) that was over at the end of a data interval, however long that is."""
    return data_interval_end.astimezone(UTC).date() - timedelta(days=1)


def submit_command(site: Site, jars: str, run_date: date, *, force: bool = False) -> list[str]:
    """The arguments for spark-submit, as docs/cluster.md has them; nothing in them meets a shell.

    Args:
        site: The site.
        jars: What ``sparkrec jars`` prints.
        run_date: The night.
        force: Run though nothing has changed.
    """
    return [
        site.program("spark-submit"),
        "--master", site.master,
        "--properties-file", site.path(site.properties_file),
        "--jars", jars,
        "--py-files", site.path("dist/sparkrec.zip"),
        *(part for key, value in site.spark_conf.items() for part in ("--conf", f"{key}={value}")),
        site.path("jobs/nightly.py"),
        "--conf", site.path(site.conf),
        "--run-date", run_date.isoformat(),
        *(["--force"] if force else []),
        *site.settings,
    ]  # fmt: skip


def submit_environment(site: Site, environ: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment without Airflow's part in it, and with the Python of the night's driver."""
    kept = {key: value for key, value in environ.items() if not NOT_HANDED_ON.match(key)}
    return {**kept, "PYSPARK_PYTHON": site.program("python")}
