import gc
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from sparkrec.processes import begin_task
from tests.quick import QUICK

ON_SPARK = """
    import signal, sys, threading, time
    from pathlib import Path
    from pyspark import SparkContext
    from sparkrec.cli import main_guard
    from sparkrec.settings.sections import SparkConfig
    from sparkrec.spark.session import build_session

    folder = sys.argv[1]  # not there in Spark's workers

    def at_work(number):
        Path(folder, str(number)).touch()
        time.sleep(120)

    def run():
        before = signal.getsignal(signal.SIGINT)
        context = build_session(SparkConfig(master="local[2]", conf=QUICK)).sparkContext
        print("Ctrl-C is ours:", signal.getsignal(signal.SIGINT) is before, flush=True)
        other = threading.Thread(target=context.parallelize([1], 1).foreach, args=(at_work,))
        other.start()
        try:
            context.parallelize([0], 1).foreach(at_work)
        finally:
            print("nobody writes:", SparkContext._gateway.proc.poll() is not None, flush=True)
            context.stop()

    sys.exit(main_guard(run))
"""


def test_a_task_freezes_what_is_there_and_imports_from_zip_files_go_on(tmp_path, monkeypatch):
    path = tmp_path / "shipped.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shipped_one.py", "value = 1")
        archive.writestr("shipped_two.py", "value = 2")
    monkeypatch.syspath_prepend(str(path))
    before = gc.get_freeze_count()
    try:
        assert importlib.import_module("shipped_one").value == 1
        assert str(path) in sys.path_importer_cache
        begin_task()
        assert gc.get_freeze_count() > before
        assert str(path) not in sys.path_importer_cache  # so nobody lists it anew
        assert importlib.import_module("shipped_two").value == 2
    finally:
        gc.unfreeze()


@pytest.mark.integration
def test_a_program_on_spark_that_is_told_to_end_says_one_line(tmp_path):
    """As ``timeout`` and systemd tell it: Python, the JVM and Spark's workers get the signal alike."""
    program = textwrap.dedent(ON_SPARK).replace("QUICK", repr(QUICK))
    begun = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    limit = time.monotonic() + 300
    while len(list(tmp_path.iterdir())) < 2 and begun.poll() is None and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(begun.pid, signal.SIGTERM)
    out, err = begun.communicate(timeout=120)
    said = [line for line in err.splitlines() if " INFO session " not in line]
    assert (begun.returncode, said) == (143, ["sparkrec: terminated"])
    assert out.splitlines() == ["Ctrl-C is ours: True", "nobody writes: True"]
