"""The helper that starts a standalone cluster."""

import psutil
import pytest

pytestmark = pytest.mark.slow


def test_failed_daemon_is_told_with_its_log(cluster_program, tmp_path):
    def start_and_stop():
        with cluster_program.standalone_cluster(1, memory_mb=0, folder=tmp_path, timeout_s=60):
            raise AssertionError("a worker without memory does not start")

    with pytest.raises(RuntimeError, match=r"worker-0 ended with exit code 1: [\s\S]*memory"):
        start_and_stop()
    leftover = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert leftover == []
