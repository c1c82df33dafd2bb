"""A real Spark standalone cluster on this machine: one master and N workers, each a process of its own.

    python infra/standalone/cluster.py --workers 2 --cores 1 --memory 1024

prints the master's URL and runs until Ctrl-C. In a program::

    with standalone_cluster(workers=2) as cluster:
        subprocess.run(["spark-submit", "--master", cluster.master_url, ...], env=os.environ | cluster.environment)

Who submits needs the cluster's secret in ``SPARKREC_SPARK_SECRET``: it is taken from there if it is set, else made and
printed. Everything listens on 127.0.0.1 and on free ports. The master keeps its state in a folder, so that one that is
started again with the same ports goes on with the running jobs. The daemons are those of the pyspark that is installed
in the running Python, started with its ``spark-class``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
SECRET = "SPARKREC_SPARK_SECRET"
LIGHT = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # a daemon has little to do: no second compiler, no GC threads


@dataclass(frozen=True)
class StandaloneCluster:
    """A running cluster."""

    master_url: str  # spark://127.0.0.1:PORT
    web_url: str  # the master's page; /json/ has its state
    folder: Path  # logs of the daemons; work folders of the workers with the executors' logs
    secret: str = field(repr=False)  # shared by the daemons and those who submit

    @property
    def environment(self) -> dict[str, str]:
        """What the environment of spark-submit must hold."""
        return {SECRET: self.secret}

    def state(self) -> dict[str, Any]:
        """What the master says of itself, its workers and its applications."""
        with urllib.request.urlopen(f"{self.web_url}/json/", timeout=5) as answer:
            return dict(json.load(answer))

    def alive_workers(self) -> int:
        """Workers registered with the master; 0 while it does not answer yet."""
        try:
            return sum(worker["state"] == "ALIVE" for worker in self.state()["workers"])
        except (OSError, ValueError):
            return 0


@contextlib.contextmanager
def standalone_cluster(
    workers: int = 2, cores: int = 1, memory_mb: int = 1024, folder: Path | None = None, timeout_s: float = 120
) -> Iterator[StandaloneCluster]:
    """Starts the daemons, waits until all workers are registered, and ends every process of theirs on leaving.

    Args:
        workers: Number of worker processes.
        cores: Task slots of each worker.
        memory_mb: Memory that each worker offers to executors, MB.
        folder: Where logs and work folders go; a temporary folder that is removed in the end, by default.
        timeout_s: Seconds that the start may take.

    Raises:
        RuntimeError: A daemon ended, or the workers did not register in time; with the end of its log.
    """
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spark-standalone-")))
        place.mkdir(parents=True, exist_ok=True)
        port, web_port = _free_ports(2)
        secret = os.environ.get(SECRET) or secrets.token_hex(32)
        cluster = StandaloneCluster(f"spark://{HOST}:{port}", f"http://{HOST}:{web_port}", place, secret)
        secured = ["--properties-file", str(_properties(place / "daemons.conf", secret))]
        daemons: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(_end, daemons)
        options = ["--host", HOST, "--port", str(port), "--webui-port", str(web_port), *secured]
        keep = (
            f"-Dspark.deploy.recoveryMode=FILESYSTEM -Dspark.deploy.recoveryDirectory={place / 'master' / 'recovery'}"
        )
        daemons["master"] = _start(place / "master", MASTER, *options, SPARK_MASTER_OPTS=keep)
        for number in range(workers):
            own = place / f"worker-{number}"
            options = [
                "--host",
                HOST,
                "--cores",
                str(cores),
                "--memory",
                f"{memory_mb}m",
                "--webui-port",
                "0",
                *secured,
            ]
            daemons[own.name] = _start(own, WORKER, *options, "--work-dir", str(own / "work"), cluster.master_url)
        _wait(cluster, daemons, workers, time.monotonic() + timeout_s)
        yield cluster


def _properties(path: Path, secret: str) -> Path:
    """Settings of the daemons, in a file that nobody else can read."""
    path.touch(mode=0o600)
    path.write_text(f"spark.authenticate true\nspark.authenticate.secret {secret}\nspark.network.crypto.enabled true\n")
    return path


def _free_ports(n: int) -> list[int]:
    """Ports that nothing listens on now. All are held until the last is found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for held in sockets:
            held.bind((HOST, 0))
        return [int(held.getsockname()[1]) for held in sockets]


def _start(
    folder: Path, daemon: str, *options: str, within: Sequence[str] = (), **variables: str
) -> subprocess.Popen[bytes]:
    """Starts a daemon in a folder and a session of its own; its output goes to ``log`` there.

    Args:
        folder: Where it runs.
        daemon: Its class.
        options: Its command line.
        within: The command that starts the command, as ``ip netns exec NAME``.
        variables: Of its environment.
    """
    import pyspark

    folder.mkdir(parents=True, exist_ok=True)
    home = Path(pyspark.__file__).parent
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYSPARK", "SPARK_"))}
    env |= {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST, "SPARK_DAEMON_MEMORY": "256m", "SPARK_NO_DAEMONIZE": "1"}
    env |= {"SPARK_DAEMON_JAVA_OPTS": LIGHT, **variables}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [*within, str(home / "bin" / "spark-class"), daemon, *options],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _wait(cluster: StandaloneCluster, daemons: dict[str, subprocess.Popen[bytes]], workers: int, limit: float) -> None:
    while cluster.alive_workers() < workers:
        for name, process in daemons.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with exit code {process.returncode}: {_log_end(cluster, name)}")
        if time.monotonic() > limit:
            raise RuntimeError(f"{cluster.alive_workers()} of {workers} workers came: {_log_end(cluster, 'master')}")
        time.sleep(0.2)


def _log_end(cluster: StandaloneCluster, name: str) -> str:
    return (cluster.folder / name / "log").read_text(errors="replace")[-2000:]


def _end(daemons: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ends the daemons, and the executors and Python processes below them, which are in process groups of their own."""
    import psutil

    below = []
    for process in daemons.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            below += [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for process in daemons.values():
        process.terminate()
    _, alive = psutil.wait_procs(below, timeout=5)
    for survivor in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    for process in daemons.values():
        process.wait()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="A Spark standalone cluster on this machine, until Ctrl-C.")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--cores", type=int, default=1, help="task slots of each worker (default 1)")
    parser.add_argument("--memory", type=int, default=1024, metavar="MB", help="memory of each worker (default 1024)")
    parser.add_argument("--folder", type=Path, help="where logs and work folders go (default: a temporary folder)")
    options = parser.parse_args()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: sys.exit(0))
    folder = options.folder.resolve() if options.folder else None
    with standalone_cluster(options.workers, options.cores, options.memory, folder) as cluster:
        print(cluster.master_url, flush=True)
        if not os.environ.get(SECRET):
            print(f"export {SECRET}={cluster.secret}", file=sys.stderr, flush=True)
        print(f"state: {cluster.web_url}  logs: {cluster.folder}  Ctrl-C ends it", file=sys.stderr, flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
