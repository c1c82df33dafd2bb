"""Starting a training function on the ranks: here for one, through ``horovod.spark.run`` for more."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.log import log_event, setup_logging
from sparkrec.settings.sections import TrainConfig
from sparkrec.spark.session import task_slots as task_slots

if TYPE_CHECKING:
    import torch
    from pyspark.sql import SparkSession

    from sparkrec.ranks.comm import Comm

# What the ranks may end with, and the exception that it becomes on the driver.
_USER_ERRORS = {"UserError": UserError, "NothingToTrain": NothingToTrain}
_ERRORS: dict[str, type[Exception]] = {**_USER_ERRORS, "InvariantError": InvariantError}
_CUT_OFF = ("HorovodInternalError", "RankLostError")  # of ranks that wait for one that has failed: the cause is there


def run_ranks(spark: SparkSession, fn: Callable[..., Any], args: tuple, config: TrainConfig) -> list[Any]:
    """Runs ``fn(comm, *args)`` on ``config.ranks`` ranks and returns their results in rank order.

    One rank runs in this process, without a launcher. More are Horovod workers, one in each of as many Spark tasks
    that run at once.

    Args:
        spark: The session.
        fn: A module-level function of the package.
        args: Its further arguments; they and the result travel pickled between driver and workers.
        config: Ranks, time limits, threads.

    Raises:
        UserError: Too few task slots, hosts that cannot tell each other apart, or a worker that died.
        InvariantError: Raised by a rank.
    """
    if config.ranks == 1:
        from sparkrec.ranks.comm import SingleProcess

        _set_up(config, os.cpu_count() or 1)
        return [fn(SingleProcess(), *args)]
    check_slots(spark, config)
    _check_hosts(spark, config.ranks)
    return _run_horovod(spark, fn, args, config)


def in_turn(comm: Comm, tasks: list[tuple[Callable[..., Any], tuple]]) -> list[Any]:
    """Runs ``fn(comm, *args)`` of each task, one after another: ranks take longer to start than a small one to train.

    What one of them raises ends all.
    """
    return [fn(comm, *args) for fn, args in tasks]


def pick_device(comm: Comm, config: TrainConfig) -> torch.device:
    """The rank's device: a GPU by its local number where there is one and the configuration allows it.

    Raises:
        UserError: ``train.device=cuda`` without a GPU.
    """
    import torch

    if config.device == "cpu" or not torch.cuda.is_available():
        if config.device == "cuda":
            raise UserError("no CUDA device", where="train.device=cuda", fix="set train.device=cpu")
        return torch.device("cpu")
    device = torch.device("cuda", comm.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _is_local(spark: SparkSession) -> bool:
    return (spark.sparkContext.master or "").startswith("local")


def check_slots(spark: SparkSession, config: TrainConfig) -> None:
    """Executors may still be registering when a job starts: a cluster gets some seconds."""
    local = _is_local(spark)
    limit = time.monotonic() + (0 if local else min(30, config.start_timeout_s))
    slots = task_slots(spark)
    while slots < config.ranks and time.monotonic() < limit:
        time.sleep(0.5)
        slots = task_slots(spark)
    if slots < config.ranks:
        raise UserError(
            "too few task slots for the training ranks",
            where=f"train.ranks={config.ranks}, task slots={slots}",
            fix=f"lower train.ranks to {slots} at most, or give Spark more executor cores",
        )


def _check_hosts(spark: SparkSession, ranks: int) -> None:
    """Raises where different hosts have one name: Horovod would connect them over loopback and hang."""
    if _is_local(spark):
        return
    tasks = spark.sparkContext.parallelize(range(ranks), ranks).barrier()
    found = tasks.mapPartitions(_host_identity).collect()  # one line a rank
    machines: dict[str, set[str]] = {}
    for name, machine in found:
        machines.setdefault(name, set()).add(machine)
    doubled = sorted(name for name, identities in machines.items() if len(identities) > 1)
    if doubled:
        raise UserError(
            "several hosts share a hostname, so Horovod takes them for one",
            where=", ".join(doubled),
            fix="give each host or container a hostname of its own",
        )


def _host_identity(_: Any) -> list[tuple[str, str]]:
    """The host's name, and what tells its network apart from that of another host of that name."""
    import socket
    from pathlib import Path

    from pyspark import BarrierTaskContext

    BarrierTaskContext.get().barrier()  # all ranks at once, so that each slot is asked
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = "/proc/self/ns/net"
    parts = [boot.read_text().strip() if boot.exists() else ""]
    parts.append(os.readlink(namespace) if os.path.exists(namespace) else "")
    return [(socket.gethostname(), " ".join(parts))]


def _run_horovod(spark: SparkSession, fn: Callable[..., Any], args: tuple, config: TrainConfig) -> list[Any]:
    import cloudpickle
    import horovod.spark

    payload = cloudpickle.dumps((fn, args, config))
    python = spark.conf.get("spark.pyspark.python", None) or os.environ.get("PYSPARK_PYTHON") or sys.executable
    try:
        with _quiet_thread("run_spark"), _own_signals():
            outcomes = horovod.spark.run(
                _entry(payload, _shipped(spark)),
                num_proc=config.ranks,
                use_gloo=True,
                start_timeout=config.start_timeout_s,
                env=_environment(config, str(spark.sparkContext.master).startswith("local")),
                stdout=sys.stderr,
                stderr=sys.stderr,
                verbose=0,
                executable=python,
            )
    except Exception as error:  # Horovod raises plain exceptions with the reason in their text
        raise UserError(
            "training workers ended before they were done",
            where=" ".join(str(error).split())[-300:],
            fix="see the executors' logs; the next attempt goes on from the last finished epoch",
        ) from error
    return _results(outcomes)


@contextlib.contextmanager
def _quiet_thread(name: str) -> Iterator[None]:
    """Leaves out the stack trace of Horovod's thread of this name: its error comes back to the caller as well."""
    usual = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or name not in failed.thread.name:
            usual(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Leaves Ctrl-C and SIGTERM to the program: Horovod would take both, and keep them when it is done.

    Its ranks would then end, and the night would say that they failed; after the training neither would do anything.
    """
    from horovod.runner import gloo_run

    theirs = gloo_run.register_shutdown_event
    gloo_run.register_shutdown_event = threading.Event  # what its ranks wait on: here nothing sets it
    try:
        yield
    finally:
        gloo_run.register_shutdown_event = theirs


def _environment(config: TrainConfig, one_machine: bool) -> dict[str, str]:
    """Settings of the worker processes, over those of the Spark task that starts them.

    Horovod looks for a tensor to reduce in cycles (ms), which cost time of a core. Steps take few milliseconds; on one
    machine their messages do not go through Horovod.
    """
    return {
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of ranks that share cores slow each other down
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(config.gloo_timeout_s),
        "HOROVOD_CYCLE_TIME": "5" if one_machine and config.shared_memory else "0.2",
        "PYTHONUNBUFFERED": "1",
    }


def _shipped(spark: SparkSession) -> list[str]:
    """Where a worker process may find the code given with ``--py-files``: it does not inherit the task's path."""
    from pyspark import SparkFiles

    names = [str(name) for name in spark.sparkContext._python_includes or []]  # type: ignore[attr-defined]
    return [*names, *(os.path.join(SparkFiles.getRootDirectory(), name) for name in names)]


def _entry(payload: bytes, shipped: list[str]) -> Callable[[], tuple[str, Any]]:
    """The function that Horovod ships. Nested, so that it travels by value: it makes the package importable."""

    def start() -> tuple[str, Any]:
        import os
        import sys

        work = os.environ.get("HOROVOD_SPARK_WORK_DIR", os.getcwd())
        places = [path if os.path.isabs(path) else os.path.join(work, path) for path in shipped]
        sys.path[:0] = [place for place in [work, *places] if os.path.exists(place)]
        import importlib

        return importlib.import_module("sparkrec.ranks.launch").run_rank(payload)  # type: ignore[no-any-return]

    start.__module__ = "__main__"
    return start


def run_rank(payload: bytes) -> tuple[str, Any]:
    """What a worker process runs: ("done", result), or the kind and the text of the exception that ended it."""
    import cloudpickle
    import horovod.torch as hvd

    from sparkrec.ranks.comm import HorovodComm

    fn, args, config = cloudpickle.loads(payload)
    hvd.init()
    comm = HorovodComm(config.shared_memory, config.gloo_timeout_s)
    try:
        _set_up(config, max(1, _cores() // comm.local_size))
        if comm.rank == 0:
            setup_logging()
        return "done", fn(comm, *args)
    except Exception as error:
        if type(error).__name__ not in (*_ERRORS, *_CUT_OFF):  # those are told by their text alone
            traceback.print_exc()
        fields = (error.what, error.where, error.fix) if isinstance(error, UserError) else (str(error), "", "")
        return type(error).__name__, fields
    finally:
        comm.close()
        hvd.shutdown()  # the other ranks' pending operations fail at once instead of waiting for this one


def _results(outcomes: list[tuple[str, Any]]) -> list[Any]:
    """The results of the ranks; raises what the first rank to fail raised."""
    failed = [(rank, kind, fields) for rank, (kind, fields) in enumerate(outcomes) if kind != "done"]
    if not failed:
        return [result for _, result in outcomes]
    # Ranks that were cut off report Horovod's own error: the cause is with another one.
    rank, kind, (what, where, fix) = min(failed, key=lambda f: (f[1] in _CUT_OFF, f[0]))
    log_event("rank_failed", rank=rank, kind=kind)
    if kind in _USER_ERRORS:
        raise _USER_ERRORS[kind](what, where=where, fix=fix)
    if kind in _ERRORS:
        raise _ERRORS[kind](what)
    raise RuntimeError(f"rank {rank}: {kind}: {what}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_up(config: TrainConfig, threads: int) -> None:
    """PyTorch's threads, so many where the configuration leaves it open, and how exact its products are."""
    import torch

    torch.set_num_threads(config.threads_per_rank or threads)
    torch.set_float32_matmul_precision(config.matmul_precision)
