"""What must not leak, and what must not be open."""

import json
import stat
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from sparkrec.errors import UserError
from sparkrec.settings.config import load_config, recorded_config
from sparkrec.spark.session import SECRET, _secret
from tests.night_process import NightProcess
from tests.nights import make_place
from tests.quick import QUICK


def test_secrets_in_the_configuration_are_not_recorded(tmp_path):
    conf = tmp_path / "conf.yaml"
    conf.write_text(
        "spark:\n  conf:\n    spark.hadoop.fs.s3a.secret.key: hunter2\n    spark.hadoop.fs.s3a.access.key: hunter2\n"
        "    spark.ssl.keyPassword: hunter2\n    spark.executor.memory: 2g\n"
        "warehouse:\n  path: s3a://hunter2:hunter2@bucket/wh\n"
    )
    recorded = recorded_config(load_config(str(conf)))
    assert "hunter2" not in json.dumps(recorded)
    assert recorded["spark"]["conf"]["spark.executor.memory"] == "2g"
    assert recorded["warehouse"]["path"] == "s3a://***@bucket/wh"
    assert recorded["gru"] == vars(load_config(str(conf)).gru)


@pytest.mark.parametrize(
    ("conf", "given"),
    [
        ({"spark.master": "local[2]", "spark.authenticate": "true"}, {}),  # Spark makes one
        ({"spark.master": "spark://h:1"}, {}),
        ({"spark.master": "spark://h:1", "spark.authenticate": "true"}, {"spark.authenticate.secret": "s3cr3t"}),
    ],
)
def test_the_clusters_secret_comes_from_the_environment(monkeypatch, conf, given):
    monkeypatch.setenv(SECRET, "s3cr3t")
    assert _secret(conf) == given


def test_a_missing_secret_is_said(monkeypatch):
    monkeypatch.delenv(SECRET, raising=False)
    with pytest.raises(UserError, match=f"export {SECRET}"):
        _secret({"spark.master": "spark://h:1", "spark.authenticate": "true"})


@pytest.mark.slow
def test_a_local_night_listens_on_loopback_alone_and_closes_its_warehouse(tmp_path):
    place = make_place(tmp_path, days=2, events=300)
    shipped = yaml.safe_load(Path("conf/local.yaml").read_text())
    (tmp_path / "local.yaml").write_text(json.dumps({"spark": {"conf": {**shipped["spark"]["conf"], **QUICK}}}))
    running = NightProcess(
        [sys.executable, "-m", "sparkrec.cli", "nightly", "--conf", str(tmp_path / "local.yaml"), "--run-date",
         place.last.isoformat(), *place.settings("models=[als]")]
    )  # fmt: skip
    try:
        running.wait_for("stage begins stage=index")
        processes = [psutil.Process(running.process.pid), *running.below()]
        open_at = {c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    finally:
        running.kill()
    assert open_at
    assert open_at <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert stat.S_IMODE(place.warehouse.stat().st_mode) & 0o007 == 0
