"""Memory does not grow with the number of events."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from pathlib import Path
from sparkrec.makelog import LogOptions, make_log
events, out = int(sys.argv[1]), Path(sys.argv[2])
make_log(LogOptions("invoices", events, users=50_000, items=10_000, days=2), out)
# Not ru_maxrss: that starts with what the test's own process had when it forked.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps(int(peak.split()[1])))
"""


def peak_mib(events, out):
    command = [sys.executable, "-c", PROGRAM, str(events), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout) / 1024


@pytest.mark.slow
def test_peak_memory_of_ten_times_the_events(tmp_path):
    small, large = peak_mib(400_000, tmp_path / "small"), peak_mib(4_000_000, tmp_path / "large")
    assert large < 400
    # Full chunks and the allocators' slack; 3.6 million more events held in memory would be 300 MiB and more.
    assert large < small + 120
