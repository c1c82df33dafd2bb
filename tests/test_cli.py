"""The command line: output that parses back, one line for a mistake, exit codes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from sparkrec import cli
from sparkrec.errors import InvariantError, UserError
from sparkrec.settings.config import load_config
from sparkrec.spark.jars import store_jars
from sparkrec.warehouse.tables import METRICS, topk_table

NIGHT = date(2024, 1, 1)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    path = tmp_path_factory.mktemp("warehouse")
    rows = [(NIGHT, "it's", r, f"i{r}", 0.5 / r, "v", "model") for r in (1, 2)]
    schema = dict(zip(topk_table("als").column_names, [pl.Date, pl.String, pl.Int32, pl.String, pl.Float32, pl.String, pl.String], strict=True))  # fmt: skip  # noqa: E501
    write_deltalake(path / "topk_als", pl.DataFrame(rows, schema=schema, orient="row"), partition_by=["run_date"])
    return f"warehouse.path={path}"


def run(capsys, *argv):
    code = cli.main(list(argv))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def sparkrec(*argv, **options):
    return subprocess.run([sys.executable, "-m", "sparkrec.cli", *argv], capture_output=True, text=True, **options)


@pytest.mark.parametrize("form", ["json", "csv", "table"])
def test_topk(capsys, warehouse, form):
    code, out, err = run(capsys, "query", "topk", "--model", "als", "--user", "it's", "--format", form, warehouse)
    assert (code, err) == (0, "")
    if form == "json":
        first = json.loads(out.splitlines()[0])
        assert list(first) == topk_table("als").column_names
        assert first == {
            "run_date": "2024-01-01", "user_id": "it's", "rank": 1, "item_id": "i1", "score": 0.5, "model_version": "v",
            "source": "model",
        }  # fmt: skip
    elif form == "csv":
        assert [r["item_id"] for r in csv.DictReader(io.StringIO(out))] == ["i1", "i2"]
    else:
        assert out.splitlines()[0].split() == topk_table("als").column_names
        assert len(out.splitlines()) == 4


def test_metrics_are_one_table_or_a_row_for_each_number(capsys, tmp_path):
    values = [("als", "recall", 20, 0.25), ("als", "ndcg", 20, 0.125), ("popularity", "recall", 20, 0.2)]
    rows = [
        (NIGHT, model, "v", metric, k, value, 9, "holdout_users", None, 0.1, 0.3) for model, metric, k, value in values
    ]
    types = [pl.Date, pl.String, pl.String, pl.String, pl.Int32, pl.Float64, pl.Int64, pl.String, pl.String]
    types += [pl.Float64, pl.Float64]
    schema = dict(zip(METRICS.column_names, types, strict=True))
    write_deltalake(tmp_path / "metrics", pl.DataFrame(rows, schema=schema, orient="row"), partition_by=["run_date"])
    argv = ["query", "metrics", f"warehouse.path={tmp_path}"]
    head, _, *lines = run(capsys, *argv)[1].splitlines()
    assert head.split() == ["run_date", "split", "k", "model", "n", "recall", "ndcg"]
    assert [line.split()[3:] for line in lines] == [["als", "9", "0.25", "0.125"], ["popularity", "9", "0.2"]]
    assert len(run(capsys, *argv, "--long")[1].splitlines()) == 2 + 3
    for form in ("csv", "json"):
        assert run(capsys, *argv, "--format", form)[1].count("recall") == 2


def test_sql_and_tables(capsys, warehouse):
    code, out, _ = run(capsys, "query", "sql", "select max(rank) as r from topk_als", warehouse, "--format", "json")
    assert (code, json.loads(out)) == (0, {"r": 2})
    code, out, _ = run(capsys, "query", "tables", "--format", "json", warehouse)
    assert (code, json.loads(out)["name"]) == (0, "topk_als")


@pytest.mark.parametrize(
    "argv",
    [
        [], ["query"], ["nope"], ["query", "nope"], ["--nope"], ["nightly"], ["nightly", "--run-date"],
        ["nightly", "--run-date", "2024-01-01", "nope.key=1"], ["nightly", "--run-date", "2024-01-01", "als.rank=many"],
        ["nightly", "--run-date", "2024-01-01", "logs.format=nope"], ["nightly", "--run-date", "2024-01-01", "word"],
        ["nightly", "--run-date", "2024-01-01", "--conf", "/nope.yaml"],
        ["nightly", "--run-date", "2024-01-01", "a=\nb"],
        ["ingest"], ["ingest", "--run-date", "2024-01-01", "--again", "x.csv", "nope.key=1"],
        ["query", "topk"], ["query", "topk", "--model", "als", "--user", "x"],
        ["query", "topk", "--model", "nope", "--user", "x", "{w}"],
        ["query", "topk", "--model", "als", "--user", "x", "{w}"],
        ["query", "topk", "--model", "als", "--user", "it's", "--run-date", "today", "{w}"],
        ["query", "topk", "--model", "als", "--user", "it's", "--k", "x", "{w}"], ["query", "metrics", "{w}"],
        ["query", "runs", "{w}"], ["query", "tables", "{w}", "--format", "xml"],
        ["query", "tables", "warehouse.path=/nope"], ["report"], ["report", "{w}"], ["report", "warehouse.path=/nope"],
        ["query", "sql", "copy topk_als to '/tmp/sparkrec-out'", "{w}"], ["query", "sql", "select * from nope", "{w}"],
        ["query", "sql", "{w}"], ["make-log"], ["make-log", "--format", "clicks", "--events", "9", "--out", "/tmp/x"],
        ["make-log", "--format", "ratings", "--events", "many", "--out", "/tmp/x"],
        ["make-log", "--format", "ratings", "--events", "9", "--out", "/proc/nope"],
        ["make-log", "--format", "ratings", "--events", "9", "--out", "/tmp/x", "--start", "monday"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(capsys, warehouse, argv):
    code, out, err = run(capsys, *[a.replace("{w}", warehouse) for a in argv])
    assert (code, out) == (2, "")
    assert err.startswith("sparkrec: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_names_of_files_to_read_again_are_taken_as_they_are():
    names = ["a, [b].csv", "it's = é.csv", "@items/x.csv", "2024-01-01"]
    assert load_config(None, cli.again_setting(names)).ingest.again == names
    assert cli.again_setting([]) == []


def test_ingest_reads_the_files_again_that_it_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(cli, "_run_stages", lambda *arguments: told.append(arguments) or 0)
    assert cli.main(["ingest", "--run-date", "2024-01-01", "--again", "x.csv", "--again", "y.csv", "als.rank=7"]) == 0
    ((stages, _, _, settings),) = told
    config = load_config(None, settings)
    assert (stages, config.ingest.again, config.als.rank) == (["ingest"], ["x.csv", "y.csv"], 7)


@pytest.mark.parametrize("argv", [["--help"], ["query", "--help"], ["nightly", "--help"], ["make-log", "--help"]])
def test_help(capsys, argv):
    code, out, err = run(capsys, *argv)
    assert (code, err) == (0, "")
    assert "Usage" in out


def test_make_log_prints_the_settings_for_a_night(capsys, tmp_path):
    argv = ["--format", "ratings", "--events", "500", "--days", "2", "--out", str(tmp_path), "--seed", "7"]
    code, out, err = run(capsys, "make-log", *argv)
    assert code == 0
    assert out == f"logs.format=ratings logs.path={tmp_path}/log logs.items_path={tmp_path}/items/movies.dat\n"
    assert err == "sparkrec: made events=500 bad_rows=0 duplicates=0 files=2\n"
    assert sum(len(p.read_text().splitlines()) for p in (tmp_path / "log").iterdir()) == 500


def test_jars(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    code, _, err = run(capsys, "jars")
    assert (code, err) == (2, f"sparkrec: Delta's jars are missing: {tmp_path} (run make setup)\n")
    folder = tmp_path / "share" / "sparkrec" / "jars"
    folder.mkdir(parents=True)
    for name in ("b.jar", "a.jar"):
        (folder / name).write_text("")
    assert run(capsys, "jars") == (0, f"{folder}/a.jar,{folder}/b.jar\n", "")
    assert run(capsys, "jars", "--with", "ftp") == (2, "", "sparkrec: no such store: ftp (one of azure, gcs, s3)\n")
    with pytest.raises(UserError, match=r"jars for s3 are missing.*sparkrec jars --with s3"):
        store_jars(["s3", "local"])
    assert store_jars(["s3"], "org.apache.hadoop:hadoop-aws:3.4.1") == store_jars(["local", "hdfs"]) == []


def test_main_guard(capsys):
    def fail(error):
        raise error

    assert cli.main_guard(lambda: None) == 0
    assert cli.main_guard(lambda: 5) == 5
    assert cli.main_guard(lambda: fail(UserError("a\nb", where="c", fix="d"))) == 2
    assert capsys.readouterr().err == "sparkrec: a b: c (d)\n"
    assert cli.main_guard(lambda: fail(KeyboardInterrupt())) == 130
    with pytest.raises(InvariantError):
        cli.main_guard(lambda: fail(InvariantError("a defect keeps its trace")))


@pytest.mark.integration
def test_a_query_starts_without_spark_and_torch(warehouse):
    program = (
        "import sys; from sparkrec.cli import main; code = main(sys.argv[1:]);"
        "print(code, [m for m in ('pyspark', 'torch', 'horovod', 'petastorm') if m in sys.modules])"
    )
    argv = ["query", "topk", "--model", "als", "--user", "it's", "--format", "json", warehouse]
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.integration
def test_a_closed_pipe_is_no_error(warehouse):
    statement = "select a.value from generate_series(1, 300000) a"
    command = f'"{sys.executable}" -m sparkrec.cli query sql "{statement}" {warehouse} --format csv | head -1'
    done = subprocess.run(["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("value\n", "", 141)


def test_unicode_whatever_the_locale(warehouse):
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [
        sys.executable,
        "-m",
        "sparkrec.cli",
        "query",
        "sql",
        "select '\N{HEADPHONE}' as a",
        warehouse,
        "--format",
        "csv",
    ]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr
    if done.returncode == 0:
        assert done.stdout.decode() == "a\n\N{HEADPHONE}\n"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "hung up")],
)
def test_a_command_that_is_told_to_end_says_one_line(tmp_path, number, code, said):
    words = [
        "make-log",
        "--format",
        "reviews",
        "--events",
        "200000000",
        "--days",
        "2",
        "--users",
        "1000",
        "--items",
        "1000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "sparkrec.cli", *words, "--out", str(tmp_path)], stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # tests in the background have some ignored
    )  # fmt: skip
    limit = time.monotonic() + 60
    while time.monotonic() < limit and not list(tmp_path.glob("log/.*")):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.decode()) == (code, f"sparkrec: {said}\n")
    assert list((tmp_path / "log").iterdir()) == []


@pytest.mark.integration
@pytest.mark.parametrize("program", [["-m", "sparkrec.cli", "nightly"], ["jobs/nightly.py"]])
def test_threads_do_not_spin_where_the_driver_trains(program):
    """OpenMP says what it was told when PyTorch is loaded, which is before the run date is looked at."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    root = Path(__file__).parents[1]
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, *program, "--run-date", "no date"]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr
