"""One night at a time on a warehouse."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from sparkrec.errors import UserError
from sparkrec.storage import files
from sparkrec.warehouse.lock import LOCK, locked
from sparkrec.warehouse.owner import this_process

PAST = "2020-01-01T00:00:00+00:00"
ELSEWHERE = {"host": "elsewhere", "boot": "another"}


def owner(**changes):
    """Another attempt of this very process."""
    later = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    return replace(this_process("other", later), **changes)


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
        (ELSEWHERE, True),  # not expired
        ({**ELSEWHERE, "expires_at": PAST}, False),
        ({}, True),  # this very process
        ({"expires_at": PAST}, True),  # which is seen to live, though it stood still
        ({"started": "1"}, False),  # its number was given to another process
        ({"pid": 2**22 + 1}, False),  # no such process
        ({"pid": 2**22 + 1, "namespace": "pid:[1]"}, True),  # numbers of another namespace mean nothing here
        ({"pid": 2**22 + 1, "namespace": "pid:[1]", "expires_at": PAST}, False),
        ({"pid": 2**22 + 1, "boot": "another"}, True),  # nor do those of another boot, whatever the host's name
        ({"boot": "", "namespace": ""}, True),  # of an older version
        ({"boot": "", "namespace": "", "expires_at": PAST}, False),
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
        "import sys, time\nfrom sparkrec.warehouse.lock import locked\n"
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

    with pytest.raises(UserError, match="was lost while me ran"):
        stand_still()
    assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "thief"  # which keeps it


def contend(folder, queue):
    try:
        with locked(folder, f"run-{os.getpid()}", 60):
            queue.put("got it")
            time.sleep(2)
    except UserError:
        queue.put("refused")


@pytest.mark.integration
@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_begin_at_once_one_gets_it(tmp_path, stale):
    if stale:
        put(tmp_path, owner(**ELSEWHERE, expires_at=PAST))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=contend, args=(str(tmp_path), queue)) for _ in range(6)]
    for child in children:
        child.start()
    answers = sorted(queue.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    assert answers == ["got it"] + ["refused"] * 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run_id": 1}'])
def test_a_lock_that_says_nothing_is_refused_until_it_is_old(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(UserError, match="damaged, or another night has just begun"):
        locked(str(tmp_path), "me", 60).__enter__()
    assert (tmp_path / LOCK).read_text() == text
    hour_ago = time.time() - 3600
    os.utime(tmp_path / LOCK, (hour_ago, hour_ago))
    with locked(str(tmp_path), "me", 60):
        assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "me"
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_still_being_written_is_waited_for(tmp_path):
    (tmp_path / LOCK).touch()
    writer = threading.Timer(0.03, put, (tmp_path, owner(run_id="just-begun")))
    writer.start()
    with pytest.raises(UserError, match=r"another night is running.*just-begun"):
        locked(str(tmp_path), "me", 60).__enter__()
    writer.join()


def test_what_a_newer_version_says_besides_is_passed_over(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({**asdict(owner(run_id="newer")), "region": "north"}))
    with pytest.raises(UserError, match="newer, process"):
        locked(str(tmp_path), "me", 60).__enter__()


@pytest.mark.integration
def test_storage_that_fails_for_a_moment_loses_no_lock(tmp_path):
    """Reads and renewals fail, as a folder stands in the file's place, and go on when it is back."""
    path, away = tmp_path / LOCK, tmp_path / "away"
    with locked(str(tmp_path), "me", 3) as lock:
        before = json.loads(path.read_text())["expires_at"]
        os.rename(path, away)
        path.mkdir()
        time.sleep(1.5)  # a renewal is tried
        lock.check()
        path.rmdir()
        os.rename(away, path)
        deadline = time.monotonic() + 30
        while json.loads(path.read_text())["expires_at"] == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert json.loads(path.read_text())["expires_at"] > before
        with pytest.raises(UserError, match="another night is running"):
            locked(str(tmp_path), "second", 3).__enter__()
    assert not list(tmp_path.iterdir())


def test_a_renewal_that_comes_late_finds_the_lock_its_own_or_gives_it_up(tmp_path):
    with locked(str(tmp_path), "me", 60) as lock:
        lock._me = replace(lock._me, expires_at=PAST)  # it stood still
        put(tmp_path, lock._me)
        lock.renew()
        assert json.loads((tmp_path / LOCK).read_text())["expires_at"] > PAST
        lock.check()
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]

    def too_late():
        with locked(str(tmp_path), "me", 60) as lock:
            lock._me = replace(lock._me, expires_at=PAST)
            put(tmp_path, owner(run_id="thief"))
            lock.renew()

    with pytest.raises(UserError, match="was lost"):
        too_late()
    assert json.loads((tmp_path / LOCK).read_text())["run_id"] == "thief"


def test_the_fence_lets_nothing_through_once_the_lock_is_lost(tmp_path):
    held = locked(str(tmp_path), "me", 60)
    lock, mine = held.__enter__(), (tmp_path / LOCK).read_text()
    lock.check()
    put(tmp_path, owner(run_id="thief"))
    for text in ((tmp_path / LOCK).read_text(), mine):  # had again too late: the thief may have written
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(UserError, match="was lost while me ran"):
            lock.check()
    with pytest.raises(UserError, match="was lost"):
        held.__exit__(None, None, None)


def test_a_file_system_without_hard_links_has_locks_too(tmp_path, monkeypatch):
    def refuse(*_args, **_more):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with locked(str(tmp_path), "me", 60), pytest.raises(UserError, match="another night is running"):
        locked(str(tmp_path), "second", 60).__enter__()


def test_a_living_owner_in_another_namespace_of_processes_keeps_its_lock(tmp_path):
    code = (
        "import sys, time\nfrom sparkrec.warehouse.lock import locked\n"
        "with locked(sys.argv[1], 'contained', 60):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces of processes can be made here")
    child = subprocess.Popen([*apart, sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="contained, process"):
            locked(str(tmp_path), "me", 60).__enter__()
    finally:
        child.kill()
        child.wait()


def test_files_are_created_once_and_moved_once(tmp_path):
    path = str(tmp_path / "new" / "file")
    assert files.create(path, b"one")
    assert not files.create(path, b"two")
    assert files.read_bytes(path) == b"one"
    assert files.move(path, f"{path}.aside")
    assert not files.move(path, f"{path}.again")
    with pytest.raises(UserError, match="cannot be renamed"):
        files.move(f"{path}.aside", str(tmp_path / "nowhere" / "file"))
