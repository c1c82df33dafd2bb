"""Tables that look older than they are."""

import json
import os
from pathlib import Path


def age(table: Path, days: int) -> None:
    """Makes a table look as if it had been written so many days earlier."""
    log = table / "_delta_log"
    for name in log.glob(".*.crc"):
        name.unlink()  # Hadoop's checksums of the files changed here
    for commit in log.glob("*.json"):
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        for action in actions:
            for kind, key in (("commitInfo", "timestamp"), ("remove", "deletionTimestamp")):
                if kind in action:
                    action[kind][key] -= days * 86_400_000
        commit.write_text("".join(json.dumps(action) + "\n" for action in actions))
    for file in table.rglob("*"):
        if file.is_file():
            at = file.stat().st_mtime - days * 86400
            os.utime(file, (at, at))
