"""Fetches Delta's jars, and those of the stores named (``s3``, ``gcs``, ``azure``), into this environment, once.

What ``sparkrec jars --with STORE`` does, for the set-up, which comes before the package itself is installed.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sparkrec.errors import UserError
from sparkrec.spark.jars import DELTA, fetch, jars_of


def main(names: list[str]) -> int:
    """Fetches them."""
    try:
        for name in (DELTA, *names):
            fetch(jars_of(name))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
