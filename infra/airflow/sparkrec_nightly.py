"""The night, submitted to the Spark cluster.

Each run computes the night of the last day that was over (UTC) when its data interval ended. A run for another night:
trigger it with the param `run_date`. What the site's machines and paths are is in the Airflow Variable `sparkrec`;
docs/scheduling-airflow.md has its keys.

| state | meaning |
|---|---|
| `night` success, `all_published` success | published |
| `night` success, `all_published` skipped | the gate held a model back: its lists of the night before stay current |
| `night` failed at once | exit code 2: input, settings or environment; the line `sparkrec: …` of its log says what |
| `night` up for retry | anything else: it is tried again, and what is done and unchanged is skipped |
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable, Param, Variable, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from sparkrec_submit import Site, night_before, read_site, submit_command, submit_environment

PUBLISHED, USER_ERROR, HELD_BACK = 0, 2, 3
VARIABLE = "sparkrec"
# Once a day, some hours into the next one, so that late logs are in.
SCHEDULE = os.environ.get("SPARKREC_SCHEDULE", "0 2 * * *")


class SubmitNight(BaseOperator):
    """Submits the night and waits for it; returns its date and exit code."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Runs spark-submit.

        Raises:
            AirflowFailException: A mistake that another attempt cannot mend.
            AirflowException: Anything else that ended it.
        """
        run_date = _run_date(context)
        try:
            site = read_site(Variable.get(VARIABLE, default=None, deserialize_json=True))
        except ValueError as error:
            raise AirflowFailException(f"Airflow Variable {VARIABLE}: {error}") from error
        if not Path(site.path("dist/sparkrec.zip")).is_file():
            raise AirflowFailException(f"dist/sparkrec.zip is missing in {site.checkout}: run make package there")
        environment = submit_environment(site, os.environ)
        command = submit_command(site, _jars(site, environment), run_date, force=context["params"]["force"])
        done = self.hook.run_command(command, env=environment)
        if done.exit_code == USER_ERROR:
            # Not done.output, the last line: that is Spark's own.
            raise AirflowFailException(f"the night of {run_date} was refused: the line 'sparkrec: …' above says why")
        if done.exit_code not in (PUBLISHED, HELD_BACK):
            raise AirflowException(f"the night of {run_date} ended with exit code {done.exit_code}")
        return {"run_date": run_date.isoformat(), "exit_code": done.exit_code}

    @cached_property
    def hook(self) -> SubprocessHook:
        """What runs the process and hands its output to the task's log."""
        return SubprocessHook()

    def on_kill(self) -> None:
        """Ends spark-submit with the task: its whole process group, driver included."""
        self.hook.send_sigterm()


def _run_date(context: Any) -> date:
    """The param, or the night before the data interval's end."""
    given = context["params"]["run_date"]
    end: datetime | None = context.get("data_interval_end")
    try:
        if given:
            return date.fromisoformat(given)
    except ValueError as error:
        raise AirflowFailException(f"param run_date is not YYYY-MM-DD: {given}") from error
    if end is None:  # triggered without a logical date
        raise AirflowFailException("a run without a data interval needs the param run_date")
    return night_before(end)


def _jars(site: Site, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run([site.program("sparkrec"), "jars"], env=environment, capture_output=True, text=True)
    except OSError as error:
        raise AirflowFailException(f"{error.strerror}: {error.filename}: run make setup there") from error
    if done.returncode:
        raise AirflowFailException(done.stderr.strip())
    return done.stdout.strip()


with DAG(
    dag_id="sparkrec_nightly",
    description="Recommender training, every night",
    doc_md=__doc__,
    # Not a plain cron string: without further settings that one has no data interval in Airflow 3.
    schedule=CronDataIntervalTimetable(SCHEDULE, timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    # A night knows all that happened before it, so the latest one makes up for those that were missed.
    catchup=False,
    max_active_runs=1,  # the warehouse's lock would refuse a second night
    params={
        "run_date": Param(None, type=["null", "string"], format="date", description="another night, YYYY-MM-DD"),
        "force": Param(False, type="boolean", description="run though nothing has changed"),
    },
    tags=["sparkrec"],
):

    @task
    def all_published(night: dict[str, Any]) -> None:
        """Shows what the gate did; a task of its own, since models that passed are published all the same."""
        if night["exit_code"] == HELD_BACK:
            raise AirflowSkipException(f"the gate held a model of {night['run_date']} back: see sparkrec query runs")

    all_published(
        SubmitNight(
            task_id="night",
            retries=2,
            # Longer than warehouse.lock_expiry_s: the lock of an attempt that died with its machine has expired then.
            retry_delay=timedelta(minutes=10),
            execution_timeout=timedelta(hours=12),
        ).output
    )
