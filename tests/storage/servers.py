"""Real storage on this machine: an S3 server (moto's) and an HDFS (Hadoop's MiniDFSCluster), each a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkrec.spark.jars import Jars, fetch

PROJECT = Path(__file__).parents[2]
BUCKET = "lake"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a-test's-key", "AWS_SECRET_ACCESS_KEY": "a-test's-secret"}


@dataclass(frozen=True)
class Server:
    """A process that stores files; ``root`` is where a test may write."""

    process: subprocess.Popen
    root: str
    endpoint: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that is a client of it."""
        if not self.endpoint:
            return {}
        there = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        return {**CREDENTIALS, **there, "AWS_DEFAULT_REGION": "us-east-1"}

    @contextmanager
    def standing_still(self):
        """As where the network to it is cut: it takes connections, and says nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def s3():
    """moto's S3 server (``s3_server``), which has S3's conditional puts, with an empty bucket."""
    import boto3

    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "tests.storage.s3_server", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT)
    try:
        wait_for_port(port, process)
        endpoint = f"http://127.0.0.1:{port}"
        names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        keys = {name: CREDENTIALS[variable] for name, variable in names.items()}
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=BUCKET)
        yield Server(process, f"s3a://{BUCKET}", endpoint)
    finally:
        end(process)


@contextmanager
def hdfs(folder: Path):
    """Hadoop's own HDFS for tests: a namenode and a datanode in one JVM."""
    import pyspark

    spark_jars = Path(pyspark.__file__).parent / "jars"
    version = next(spark_jars.glob("hadoop-client-api-*.jar")).stem.removeprefix("hadoop-client-api-")
    coordinates = (f"org.apache.hadoop:hadoop-client-minicluster:{version}",)
    mini = fetch(Jars("minidfs", coordinates, Path(__file__).parent / "minidfs.sha256"))
    port = free_port()
    log, started = folder / "hdfs.log", folder / "details.json"  # the latter is written when all of it is up
    command = [
        "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
        "-cp", ":".join([*map(str, mini), f"{spark_jars}/*"]), "org.apache.hadoop.test.MiniDFSClusterManager",
        "-format", "-nnport", str(port), "-httpport", "0", "-datanodes", "1",
        "-writeDetails", str(started), "-D", f"hdfs.minidfs.basedir={folder}/hdfs",
    ]  # fmt: skip
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.PIPE, cwd=folder)
    try:
        limit = time.monotonic() + 120
        while not started.is_file():
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(log.read_text(errors="replace")[-2000:])
            time.sleep(0.2)
        yield Server(process, f"hdfs://localhost:{port}")
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(port: int, process: subprocess.Popen, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no server at port {port}")


def end(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def in_environment(server: Server) -> dict[str, str]:
    """The environment of a command that is a client of the server."""
    return {**os.environ, **server.environment}
