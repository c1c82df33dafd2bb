"""What Spark's Python workers find loaded when they begin."""

import pytest


@pytest.mark.integration
def test_workers_of_a_local_session_are_copies_of_a_daemon_that_has_loaded_the_libraries(spark):
    def loaded(rows):
        import gc
        import os
        import sys

        list(rows)
        # Workers are forked: what the daemon loaded is there before anything of the task is.
        yield os.getppid(), sorted({"numpy", "pandas", "pyarrow", "torch"} & sys.modules.keys()), gc.get_freeze_count()

    ((parent, names, frozen),) = spark.sparkContext.parallelize([0], 1).mapPartitions(loaded).collect()
    with open(f"/proc/{parent}/cmdline", "rb") as file:
        words = file.read().decode().split("\0")
    assert words[1:3] == ["-m", "sparkrec.spark.daemon"]
    assert names == ["numpy", "pandas", "pyarrow", "torch"]
    assert frozen > 10_000
