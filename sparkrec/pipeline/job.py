"""The command line that all files in ``jobs/`` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sparkrec.exits import main_guard
from sparkrec.log import setup_logging
from sparkrec.models import MODELS
from sparkrec.processes import wait_passively
from sparkrec.settings.config import load_config


def run_job(stages: Sequence[str], description: str | None, argv: Sequence[str] | None = None) -> int:
    """Parses ``--conf FILE --run-date DATE [--force] key=value …`` and runs the stages (none: the whole night).

    The whole night also takes ``--from STAGE``.

    Returns:
        The exit code: 0, 2 after a user's mistake, which is printed as one line, or 3 where the gate held a model
        back.
    """
    parser = _parser(description)
    if not stages:
        parser.add_argument("--from", dest="first", default="", metavar="STAGE", help="leave out the stages before it")
    arguments = parser.parse_intermixed_args(argv)
    return _run(arguments, stages)


def run_training(description: str | None, argv: Sequence[str] | None = None) -> int:
    """Parses ``--model NAME`` and what ``run_job`` takes, and trains that model; the exit code is its."""
    parser = _parser(description)
    parser.add_argument("--model", required=True, choices=list(MODELS), metavar="NAME", help=", ".join(MODELS))
    arguments = parser.parse_intermixed_args(argv)
    return _run(arguments, [f"train_{arguments.model}"])


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conf", help="the environment's YAML file, e.g. conf/cluster.yaml")
    parser.add_argument("--run-date", required=True, help="the night, YYYY-MM-DD or yesterday")
    parser.add_argument("--force", action="store_true", help="run though nothing has changed")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the files")
    return parser


def _run(arguments: argparse.Namespace, stages: Sequence[str]) -> int:
    setup_logging()

    def run() -> int:
        wait_passively()
        from sparkrec.pipeline.nightly import Choice, run_nightly

        config = load_config(arguments.conf, arguments.settings)
        choice = Choice(tuple(stages), getattr(arguments, "first", ""), arguments.force)
        return run_nightly(config, arguments.run_date, choice)

    return main_guard(run)
