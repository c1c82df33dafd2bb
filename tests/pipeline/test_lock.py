"""One night at a time on a warehouse."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from sparkrec.errors import InvariantError, UserError
from sparkrec.pipeline.lock import LOCK, Owner, _started, locked


def owner(**changes):
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    mine = Owner("other", "elsewhere", os.getpid(), _started(os.getpid()), later)
    return replace(mine, **changes)


def put(folder, holder):
    (folder / LOCK).write_text(json.dumps(asdict(holder)))


def test_a_second_night_is_refused_and_the_lock_is_given_back(tmp_path):
    with locked(str(tmp_path), "first", 60):
        with pytest.raises(UserError, match=r"another night is running.*first, process"):
            locked(str(tmp_path), "second", 60).__enter__()
        assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "first"
    assert not list(tmp_path.iterdir())
    with locked(str(tmp_path), "third", 60):
        pass


def test_the_lock_is_given_back_when_the_night_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(str(tmp_path), "first", 60):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, True),  # of another machine, not expired
        ({"expires_at": "2020-01-01T00:00:00+00:00"}, False),
        ({"host": os.uname().nodename}, True),  # this very process
        ({"host": os.uname().nodename, "started": "1"}, False),  # its number was given to another process
        ({"host": os.uname().nodename, "pid": 2**22 + 1}, False),  # no such process
    ],
)
def test_a_dead_owners_lock_is_taken_over(tmp_path, changes, refused):
    put(tmp_path, owner(**changes))
    if refused:
        with pytest.raises(UserError, match="another night is running"):
            locked(str(tmp_path), "me", 60).__enter__()
        return
    with locked(str(tmp_path), "me", 60):
        assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "me"
    assert not list(tmp_path.iterdir())


def test_a_night_that_was_killed_leaves_a_lock_that_is_taken_over(tmp_path):
    code = (
        "import sys, time\nfrom sparkrec.pipeline.lock import locked\n"
        "with locked(sys.argv[1], 'killed', 60):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="killed, process"):
        locked(str(tmp_path), "me", 60).__enter__()
    child.kill()
    child.wait()
    with locked(str(tmp_path), "me", 60):
        pass


def test_the_lock_is_renewed_while_it_is_held(tmp_path):
    with locked(str(tmp_path), "me", 0.6):
        before = json.loads((tmp_path / LOCK).read_text())["expires_at"]
        deadline = time.monotonic() + 30
        while json.loads((tmp_path / LOCK).read_text())["expires_at"] == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads((tmp_path / LOCK).read_text())["expires_at"] > before


def test_a_night_that_has_lost_its_lock_says_so(tmp_path):
    def stand_still():
        with locked(str(tmp_path), "me", 0.3):
            put(tmp_path, owner(run_id="thief"))
            time.sleep(1)

    with pytest.raises(InvariantError, match="was lost"):
        stand_still()
    assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "thief"  # which keeps it


def contend(folder, queue):
    try:
        with locked(folder, f"run-{os.getpid()}", 60):
            queue.put("got it")
            time.sleep(2)
    except UserError:
        queue.put("refused")


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_begin_at_once_one_gets_it(tmp_path, stale):
    if stale:
        put(tmp_path, owner(expires_at="2020-01-01T00:00:00+00:00"))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=contend, args=(str(tmp_path), queue)) for _ in range(6)]
    for child in children:
        child.start()
    answers = sorted(queue.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert answers == ["got it"] + ["refused"] * 5


def test_a_damaged_lock_is_refused(tmp_path):
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        locked(str(tmp_path), "me", 60).__enter__()
