"""The command line: ``sparkrec nightly``, ``search``, ``query`` and the other commands.

What a command needs is imported inside it, so that ``sparkrec query`` starts without Spark or PyTorch. A user's
mistake is one line on standard error and exit code 2; Ctrl-C is one line and 130, SIGTERM one line and 143.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from typer.exceptions import TyperException

from sparkrec.errors import UserError
from sparkrec.exits import INTERRUPTED, OK, main_guard
from sparkrec.processes import wait_passively

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.settings.config import Config
    from sparkrec.warehouse.location import Warehouse

app = typer.Typer(
    help="Nightly recommender training on Spark.", add_completion=False, pretty_exceptions_enable=False
)  # fmt: skip
query_app = typer.Typer(help="Read the tables, without Spark or Java.")
app.add_typer(query_app, name="query")

# typer reads these annotations at run time, so they are spelt out for it.
Conf = Annotated[Optional[str], typer.Option("--conf", help="the environment's YAML file, e.g. conf/local.yaml")]  # noqa: UP045
RunDate = Annotated[
    str,
    typer.Option("--run-date", help="the night, YYYY-MM-DD or yesterday: the last day whose events it uses"),
]
Force = Annotated[bool, typer.Option("--force", help="run though nothing has changed")]
Settings = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="key=value", help="settings that win over the files, e.g. warehouse.path=DIR"),
]
Form = Annotated[str, typer.Option("--format", help="table, json (one object a line) or csv")]
Night = Annotated[Optional[str], typer.Option("--run-date", help="one night: YYYY-MM-DD or latest")]  # noqa: UP045

ListNight = Annotated[str, typer.Option(help="the night: YYYY-MM-DD or latest")]
AtMost = Annotated[Optional[int], typer.Option(help="at most so many items")]  # noqa: UP045


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""

    def run() -> int:
        try:
            code = app(args=argv, prog_name="sparkrec", standalone_mode=False) or OK
        except SystemExit as error:  # how typer answers a closed pipe
            raise BrokenPipeError from error
        except TyperException as error:
            message = getattr(error, "format_message", error.__str__)()
            raise UserError(message, fix="see sparkrec --help") from error
        if code == INTERRUPTED:  # how it answers Ctrl-C
            raise KeyboardInterrupt
        return code

    return main_guard(run)


@app.command()
def nightly(
    run_date: RunDate,
    conf: Conf = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="leave out the stages before it")] = "",
    only: Annotated[str, typer.Option(metavar="STAGE,…", help="these stages alone")] = "",
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would run and why, and write nothing")] = False,
    settings: Settings = None,
) -> int:
    """Run a night: raw logs in, top-K tables out. Ends with 3 where the gate held a model back."""
    return _run_stages([name for name in only.split(",") if name], run_date, conf, settings, first, force, dry_run)


@app.command()
def stage(
    name: Annotated[
        str, typer.Argument(help="ingest, index, prepare, train_als, train_gru, …, evaluate, topk, maintain")
    ],
    run_date: RunDate,
    conf: Conf = None,
    force: Force = False,
    settings: Settings = None,
) -> int:
    """Run one stage of a night."""
    return _run_stages([name], run_date, conf, settings, force=force)


@app.command("ingest")
def ingest_command(
    run_date: RunDate,
    again: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="FILE", help="read it again though it is unchanged, as files names it (repeat), or all"),
    ] = None,
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Take the new log files in, without the rest of the night."""
    return _run_stages(["ingest"], run_date, conf, [*(settings or []), *again_setting(again or [])])


@app.command()
def models(conf: Conf = None, settings: Settings = None) -> int:
    """Print what each model suits, what it costs and which of its settings matter most, as Markdown."""
    from sparkrec.models.described import as_markdown
    from sparkrec.settings.config import load_config

    sys.stdout.write(as_markdown(load_config(conf, settings or [])))
    return OK


@app.command()
def settings(conf: Conf = None, settings: Settings = None) -> int:
    """Print every setting with its value and its meaning, as YAML: conf/base.yaml with what FILE and key=value say."""
    from sparkrec.settings.config import load_config
    from sparkrec.settings.written import as_yaml

    sys.stdout.write(as_yaml(load_config(conf, settings or [])))
    return OK


@app.command()
def search(
    run_date: RunDate,
    model: Annotated[str, typer.Option(help="a model that is trained by itself: als, gru, …")],
    grid: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--try", metavar="key=[value, …]", help="values of a setting (may be repeated: all combinations)"),
    ] = None,
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Try settings of a model on the night before the hold-out begins, and print what they and popularity reached."""
    from sparkrec.log import setup_logging
    from sparkrec.settings.config import load_config

    def configure(more: Sequence[str]) -> Config:
        return load_config(conf, [*(settings or []), *more])

    config = configure([])  # before Spark is imported: a wrong key is told at once
    wait_passively()
    from sparkrec.pipeline.search import run_search, shown

    setup_logging()
    return _show([shown(model, run_search(configure, run_date, model, grid or []), config.gate)], form)


@app.command()
def predict(
    pairs: Annotated[Path, typer.Option("--pairs", metavar="FILE", help="CSV of user,item: ids as in the log")],
    model: Annotated[str, typer.Option(help="a model that predicts ratings: ratings, or als of explicit feedback")],
    run_date: ListNight = "latest",
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Print the ratings that a night's model predicts for pairs; needs no Spark or Java."""
    from sparkrec.models.predict import predict as predicted

    return _show([predicted(_warehouse(conf, settings), model, pairs, run_date=run_date)], form)


@app.command()
def rollback(
    to: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", metavar="RUN_DATE", help="a night that was published, YYYY-MM-DD"),
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="its lists stay current until they are released")] = False,
    release: Annotated[bool, typer.Option("--release", help="pinned lists move on with the next night")] = False,
    model: Annotated[Optional[list[str]], typer.Option(help="this model alone (may be repeated)")] = None,  # noqa: UP045
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Make the lists of another night current; no list is changed."""
    from sparkrec.settings.config import load_config
    from sparkrec.storage.access import reach
    from sparkrec.warehouse.location import Warehouse
    from sparkrec.warehouse.rollback import rollback as make_current

    config = load_config(conf, list(settings or []))
    reach(config.storage)
    warehouse, expiry_s = Warehouse(config.warehouse.path), config.warehouse.lock_expiry_s
    rows = make_current(warehouse, to, model or [], pin=pin, release=release, expiry_s=expiry_s)
    return _show([rows], form)


@app.command()
def report(
    run_date: Annotated[str, typer.Option("--run-date", help="the night: YYYY-MM-DD or latest")] = "latest",
    out: Annotated[Optional[str], typer.Option(help="the file; else <run_date>.html in the folder of reports")] = None,  # noqa: UP045
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Write the HTML page of a night and print its path; needs no Spark or Java."""
    from sparkrec.report import write_report
    from sparkrec.settings.config import load_config
    from sparkrec.storage.access import reach
    from sparkrec.warehouse.location import Warehouse

    config = load_config(conf, list(settings or []))
    reach(config.storage)
    print(write_report(Warehouse(config.warehouse.path), config.report, run_date, out))
    return OK


@app.command()
def look(
    log: Annotated[str, typer.Argument(metavar="LOG", help="file or folder of raw logs")],
    out: Annotated[str, typer.Option(help="folder for format.yaml and night.yaml")],
    check: Annotated[
        bool, typer.Option("--check", help="take the whole log in, dry, and count what comes of it")
    ] = False,
) -> int:
    """Look at a log of any making, and write a format and a night for it; needs no Spark but for --check."""
    from sparkrec.look import look as look_at

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    if not check:
        look_at(log, out, sys.stdout)
        return OK
    wait_passively()
    from sparkrec.look.check import check as take_in

    return take_in(log, out, sys.stdout)


@app.command("make-log")
def make_log_command(
    log_format: Annotated[str, typer.Option("--format", help="reviews, invoices, sessions or ratings")],
    events: Annotated[int, typer.Option(help="valid, distinct events")],
    out: Annotated[Path, typer.Option(help="folder for log/ and items/")],
    users: Annotated[Optional[int], typer.Option(help="users; else one for each 40 events")] = None,  # noqa: UP045
    items: Annotated[Optional[int], typer.Option(help="items; else one for each 100 events")] = None,  # noqa: UP045
    days: Annotated[int, typer.Option(help="days that the log spans, a file each")] = 30,
    start: Annotated[str, typer.Option(help="the first day, YYYY-MM-DD")] = "2024-01-01",
    seed: Annotated[int, typer.Option(help="the same seed and options make the same bytes")] = 1,
    gzip: Annotated[bool, typer.Option("--gzip", help="compress the files")] = False,
    bad_rows: Annotated[float, typer.Option(help="unreadable rows to add, as a share of the events")] = 0.0,
    duplicates: Annotated[float, typer.Option(help="exact copies to add, as a share of the events")] = 0.0,
    anonymous: Annotated[Optional[float], typer.Option(help="share of sessions without a user")] = None,  # noqa: UP045
    session_id: Annotated[bool, typer.Option(help="sessions: with session ids")] = True,
    file_type: Annotated[Optional[str], typer.Option(help="sessions: parquet or csv")] = None,  # noqa: UP045
    one_file: Annotated[bool, typer.Option("--one-file", help="one file for all days, as public ratings are")] = False,
) -> int:
    """Make a raw log to try the system with."""
    from sparkrec.makelog import LogOptions, make_log

    options = LogOptions(
        log_format, events, users=users, items=items, days=days, start=_day(start), seed=seed, gzip=gzip,
        bad_rows=bad_rows, duplicates=duplicates, anonymous=anonymous, session_id=session_id, file_type=file_type,
        one_file=one_file,
    )  # fmt: skip
    made = make_log(options, out)
    counts = f"events={made.events} bad_rows={made.bad_rows} duplicates={made.duplicates} files={made.files}"
    items_setting = f" logs.items_path={made.items_path}" if made.items_path else ""
    print(f"sparkrec: made {counts}", file=sys.stderr)
    print(f"logs.format={log_format} logs.path={made.log_path}{items_setting}")
    return OK


@app.command()
def jars(
    stores: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="STORE", help="s3, gcs or azure: its jars too, which are fetched once"),
    ] = None,
    renew: Annotated[bool, typer.Option(hidden=True, help="write the hashes instead of checking them")] = False,
) -> int:
    """Print the jars of Delta and of object stores, for spark-submit --jars."""
    from sparkrec.spark.jars import DELTA, delta_jars, fetch, jars_of

    if renew:
        for name in stores or [DELTA]:
            fetch(jars_of(name), renew=True)
    found = delta_jars()
    if not found:
        raise UserError("Delta's jars are missing", where=sys.prefix, fix="run make setup")
    found += [jar for name in stores or [] for jar in fetch(jars_of(name))]
    print(",".join(str(jar) for jar in found))
    return OK


@query_app.command("topk")
def query_topk(
    model: Annotated[str, typer.Option(help="a model whose lists are for users, sessions or baskets: als, gru, …")],
    user: Annotated[str, typer.Option(help="the user's id as in the log, or a session's or basket's")],
    run_date: ListNight = "latest",
    k: AtMost = None,
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Print the list of a user."""
    from sparkrec.warehouse import query

    return _show([query.topk(_warehouse(conf, settings), model, user, run_date=run_date, k=k)], form)


@query_app.command("similar")
def query_similar(
    model: Annotated[str, typer.Option(help="a model with similar items or users: als, prod2vec, …")],
    item: Annotated[Optional[str], typer.Option(help="the item's id as in the log")] = None,  # noqa: UP045
    user: Annotated[Optional[str], typer.Option(help="the user's id as in the log")] = None,  # noqa: UP045
    run_date: ListNight = "latest",
    k: AtMost = None,
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Print the items beside an item, or the users beside a user (topk.similar_users=true)."""
    from sparkrec.warehouse import query

    warehouse = _warehouse(conf, settings)
    if (item is None) == (user is None):
        raise UserError("give either an item or a user", where="query similar", fix="--item ID, or --user ID")
    if user is not None:
        return _show([query.similar_users(warehouse, model, user, run_date=run_date, k=k)], form)
    return _show([query.similar(warehouse, model, str(item), run_date=run_date, k=k)], form)


@query_app.command("metrics")
def query_metrics(
    run_date: Night = None,
    model: Annotated[Optional[str], typer.Option(help="one model or baseline")] = None,  # noqa: UP045
    long: Annotated[bool, typer.Option("--long", help="a row for each number, as json and csv have it")] = False,
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Print the hold-out metrics: a row for each model, hold-out and length of the lists."""
    from sparkrec.warehouse import query

    found = query.metrics(_warehouse(conf, settings), run_date=run_date, model=model)
    return _show([found if long or form != "table" else query.metrics_short(found)], form)


@query_app.command("runs")
def query_runs(
    run_date: Night = None,
    stage: Annotated[Optional[str], typer.Option(help="one stage")] = None,  # noqa: UP045
    form: Form = "table",
    conf: Conf = None,
    settings: Settings = None,
) -> int:
    """Print what ran; json and csv hold all columns, the configuration too."""
    from sparkrec.warehouse import query

    ledger = query.runs(_warehouse(conf, settings), run_date=run_date, stage=stage)
    return _show([query.runs_short(ledger) if form == "table" else ledger], form)


@query_app.command("tables")
def query_tables(form: Form = "table", conf: Conf = None, settings: Settings = None) -> int:
    """Print the tables that exist, with their sizes and versions."""
    from sparkrec.warehouse import query

    return _show([query.tables(_warehouse(conf, settings))], form)


@query_app.command("sql")
def query_sql(
    statement: Annotated[str, typer.Argument(metavar="QUERY", help="one SELECT over the tables, by their names")],
    settings: Settings = None,
    form: Form = "table",
    conf: Conf = None,
) -> int:
    """Run a read-only query over all tables."""
    from sparkrec.warehouse import query

    return _show(query.sql(_warehouse(conf, settings), statement), form)


def again_setting(names: Sequence[str]) -> list[str]:
    """The setting that has files read again, as on the command line; nothing without a name."""
    return [f"ingest.again={json.dumps(list(names), ensure_ascii=False)}"] if names else []


def _run_stages(
    only: Sequence[str],
    run_date: str,
    conf: str | None,
    settings: Sequence[str] | None,
    first: str = "",
    force: bool = False,
    dry_run: bool = False,
) -> int:
    from sparkrec.log import setup_logging
    from sparkrec.settings.config import load_config

    config = load_config(conf, list(settings or []))  # before Spark is imported: a wrong key is told at once
    wait_passively()
    from sparkrec.pipeline.nightly import Choice, plan_nightly, run_nightly

    setup_logging()
    choice = Choice(tuple(only), first, force)
    if not dry_run:
        return run_nightly(config, run_date, choice)
    for name, runs, why in plan_nightly(config, run_date, choice):
        print(f"{name}: {'run' if runs else 'skip'}: {why}")
    return OK


def _warehouse(conf: str | None, settings: Sequence[str] | None) -> Warehouse:
    from sparkrec.settings.config import load_config
    from sparkrec.storage.access import reach
    from sparkrec.warehouse.location import Warehouse

    config = load_config(conf, list(settings or []))
    reach(config.storage)
    return Warehouse(config.warehouse.path)


def _show(frames: Iterable[pl.DataFrame], form: str) -> int:
    from sparkrec.rendering import render

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # whatever the locale: ids may be any text
    render(frames, form, sys.stdout)
    return OK


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UserError("day is not YYYY-MM-DD", where=text, fix="for example 2024-01-01") from error


if __name__ == "__main__":
    sys.exit(main())
