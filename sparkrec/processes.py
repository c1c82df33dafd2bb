"""What makes the processes that train and serve wait and end cheaply, and end as they are told to."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from zipimport import zipimporter

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class Ended(BaseException):
    """A signal told the program to end. No error of the program: what handles errors lets it pass."""


def wait_passively() -> None:
    """Lets OpenMP's threads sleep where they wait, unless the environment says otherwise.

    Threads that spin slow each other down ten times and more where others use the cores, too. OpenMP reads this once,
    as PyTorch is imported, so a program calls it before that.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def begin_task() -> None:
    """Begins a task in one of Spark's Python workers, after its imports.

    PySpark's worker collects garbage after each task and lists its zip files anew before each. With PyTorch loaded
    the two take some tenths of a second, more than most tasks. So what is there by now is taken out of the garbage
    collector's sight, and zip files are looked at again when something is imported from them.
    """
    gc.freeze()
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimporter):
            del sys.path_importer_cache[path]


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[list[int]]:
    """Lets Ctrl-C, SIGTERM and a terminal that closes end the program as a mistake does: with one line.

    The line is written at once. What is said from then on, above all by Spark of the tasks that were cut off, is lost.
    Spark's JVM ends before :class:`Ended` is raised in the main thread, so nothing writes any more when locks and
    scratch folders are given back on the way out. More signals change nothing, but a second Ctrl-C ends the program
    where it is. A signal that the caller's caller ignores (``nohup``) stays ignored.

    Yields:
        The signals that came: one at most.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
        yield heard
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != owner:  # a copy of the process, which has nothing of its own to give back
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not heard:
            heard.append(number)
            for other in ENDING:
                signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else signal.SIG_IGN)
            _last_words(f"sparkrec: {ENDING[signal.Signals(number)]}")
            _end_spark()
            raise Ended(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield heard
    finally:
        if not heard:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def own_ctrl_c() -> Iterator[None]:
    """Keeps the program's handler of Ctrl-C, where it has one, from a library that sets its own meanwhile."""
    mine = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if mine is not signal.default_int_handler and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, mine)


def _last_words(line: str) -> None:
    """Writes a line to standard error, and lets all that follows go nowhere."""
    begin = "\n" if os.isatty(2) else ""  # below a progress bar, or what the terminal shows of Ctrl-C
    os.write(2, f"{begin}{line}\n".encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _end_spark(within_s: float = 10.0) -> None:
    """Ends Spark's JVM where this process has started one; in that of another (spark-submit) it cancels the jobs.

    Args:
        within_s: Seconds that it gets to tell the executors and to remove its temporary files.
    """
    context = getattr(sys.modules.get("pyspark"), "SparkContext", None)
    process = getattr(getattr(context, "_gateway", None), "proc", None)
    if process is not None:
        process.terminate()
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    elif getattr(context, "_active_spark_context", None) is not None:
        with contextlib.suppress(Exception):  # it may be ending by itself: Py4J raises several kinds
            context._active_spark_context.cancelAllJobs()  # type: ignore[union-attr]
