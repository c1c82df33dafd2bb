"""Settings that follow from the machine and the log."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.spark import sizing
from sparkrec.spark.sizing import Machine, heap_mb, log_mb, settings, this_machine

MACHINES = st.builds(Machine, st.integers(1, 256), st.integers(1024, 1 << 22))
SIZES = st.one_of(st.none(), st.floats(0, 1e9))


@given(MACHINES)
def test_the_heap_leaves_room_for_python_and_the_ranks(machine):
    heap = heap_mb(machine)
    assert 1024 <= heap <= sizing.LARGEST_HEAP_MB
    room = machine.memory_mb - heap
    assert heap == 1024 or (room >= 1024 + 256 * machine.cores and room >= machine.memory_mb // 2)


@given(MACHINES, SIZES)
def test_settings_follow_cores_and_log(machine, size):
    found = settings(machine, size)
    partitions, parallelism = int(found["spark.sql.shuffle.partitions"]), int(found["spark.default.parallelism"])
    small = size is not None and size <= sizing.SMALL_MB
    assert ("spark.sql.codegen.wholeStage" in found) == small
    if small:
        assert partitions == parallelism == 2
    else:
        assert parallelism == 2 * machine.cores
        assert partitions >= 8 * machine.cores  # no core idles
        assert (size or 0) / partitions <= sizing.PARTITION_MB


@given(MACHINES, st.floats(sizing.SMALL_MB + 1, 1e8), st.floats(1, 10))
def test_more_log_never_makes_fewer_partitions(machine, size, factor):
    key = "spark.sql.shuffle.partitions"
    assert int(settings(machine, size)[key]) <= int(settings(machine, size * factor)[key])


def test_two_cores_and_eight_gigabytes_are_what_they_were():
    found = settings(Machine(2, 8192), 2000)
    assert found == {
        "spark.driver.memory": "3072m",
        "spark.default.parallelism": "4",
        "spark.sql.shuffle.partitions": "16",
    }


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "cores", "memory_mb"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
          "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/b/memory.max": f"{300 << 20}\n",
          "sys/fs/cgroup/a/memory.max": "max\n"}, 1, 300),
        ({"proc/self/cgroup": "3:cpu,cpuacct:/d\n2:memory:/d\n", "sys/fs/cgroup/cpu/d/cpu.cfs_quota_us": "100000\n",
          "sys/fs/cgroup/cpu/d/cpu.cfs_period_us": "100000\n",
          "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{200 << 20}"}, 1, 200),
        ({"proc/self/cgroup": "3:cpu:/d\n", "sys/fs/cgroup/cpu/d/cpu.cfs_quota_us": "-1\n"}, None, None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_a_container_s_limits_count(tmp_path, files, cores, memory_mb):
    for name, text in files.items():
        write(tmp_path, name, text)
    whole, found = this_machine(Path("/nowhere")), this_machine(tmp_path)
    assert whole.cores == len(os.sched_getaffinity(0))
    assert found == Machine(cores or whole.cores, memory_mb or whole.memory_mb)


def test_log_is_measured_as_plain_text(tmp_path):
    write(tmp_path, "log/day/1.csv", "x" * 1000)
    write(tmp_path, "log/2.csv.gz", "x" * 1000)
    write(tmp_path, "log/_SUCCESS", "x" * 1000)
    write(tmp_path, "log/_delta_log/0.json", "x" * 1000)
    write(tmp_path, "one.csv", "x" * 500)
    assert log_mb(f"{tmp_path}/log", f"file://{tmp_path}/one.csv", None) == pytest.approx(9500 / (1 << 20))
    assert log_mb(f"{tmp_path}/none") == 0
    assert log_mb(f"{tmp_path}/log", "nosuch://bucket/log") is None
