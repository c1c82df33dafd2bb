"""What the programs in ``bench/`` share: a night in a process of its own, its memory, and the ledger read back."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>


@dataclass(frozen=True)
class Finished:
    """A command that ended: wall time and CPU time in seconds and the largest resident memory of its process tree."""

    seconds: float
    peak_bytes: int
    code: int
    cpu_seconds: float = 0.0


def run_measured(command: list[str], cwd: str | None = None, **environment: str) -> Finished:
    """Runs a command, sampling the memory of its process tree twice a second (shared pages counted once).

    What it leaves behind, as a JVM that is still ending, is waited for: its CPU time counts too.
    """
    started, before = time.monotonic(), _cpu_of_children()
    _adopt_orphans()
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=cwd)
    peak = [0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], tree_bytes(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    seconds = time.monotonic() - started
    _wait_for_orphans(limit_s=30)
    return Finished(seconds, peak[0], code, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    """CPU seconds of all processes below this one that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _adopt_orphans() -> None:
    """Makes this process the parent of those below it that lose theirs, on Linux."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _wait_for_orphans(limit_s: float) -> None:
    end = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):  # there is none left
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.1)


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
