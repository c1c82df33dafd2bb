"""What the programs in ``bench/`` share: a night in a process of its own, its memory, and the ledger read back."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Finished:
    """A command that ended: wall time in seconds and the largest resident memory of its whole process tree."""

    seconds: float
    peak_bytes: int
    code: int


def run_measured(command: list[str], **environment: str) -> Finished:
    """Runs a command, sampling the memory of its process tree twice a second (shared pages counted once)."""
    started = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environment})
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], tree_bytes(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    return Finished(time.monotonic() - started, peak[0], code)


def tree_bytes(pid: int) -> int:
    """Proportional resident memory of a process and all below it, in bytes: shared pages count once."""
    try:
        root = psutil.Process(pid)
        return sum(_proportional(process.pid) for process in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def sparkrec_command(*arguments: str) -> list[str]:
    """``sparkrec …`` of the environment that runs this program."""
    return [str(Path(sys.executable).parent / "sparkrec"), *arguments]


def machine() -> str:
    """One line about the machine."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, no GPU"


def say(*words: object) -> None:
    """A line for people, on standard error."""
    print(*words, file=sys.stderr, flush=True)


def last_line(**values: object) -> None:
    """The last line of a bench program: JSON."""
    print(json.dumps(values), flush=True)
