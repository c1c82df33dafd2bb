"""The command line that all files in ``jobs/`` share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sparkrec.cli import main_guard
from sparkrec.config import load_config
from sparkrec.log import setup_logging


def run_job(stages: Sequence[str] | None, description: str | None, argv: Sequence[str] | None = None) -> int:
    """Parses ``--conf FILE --run-date DATE key=value …`` and runs the stages (None: the whole night).

    Returns:
        The exit code: 0, or 2 after a user's mistake, which is printed as one line.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conf", help="the environment's YAML file, e.g. conf/cluster.yaml")
    parser.add_argument("--run-date", required=True, help="the night, YYYY-MM-DD")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings that win over the files")
    arguments = parser.parse_intermixed_args(argv)
    setup_logging()

    def run() -> int:
        from sparkrec.pipeline.nightly import run_nightly

        config = load_config(arguments.conf, arguments.settings)
        return run_nightly(config, arguments.run_date, only=stages)

    return main_guard(run)
