"""Nights in processes of their own, which tests watch, kill and cut off from what they need."""

import contextlib
import os
import subprocess
import threading
import time

import psutil

HANG = 600  # s: nothing that is waited for here takes so long, even on a machine that is busy with other work


def names_below(folder):
    """Every file below a folder."""
    return {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names}


class NightProcess:
    """A night that runs by the command line, in a process group of its own; its log lines are watched."""

    def __init__(self, args, cwd=None, env=None):
        self.lines = []
        self._silent = False
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            args, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip  # spark-submit gives a Python driver's errors out with its output
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()

    def wait_for(self, text):
        """Until a line has the text."""
        with self._said:
            self._said.wait_for(lambda: self.said(text) or self._silent, HANG)
        assert self.said(text), f"no line with {text!r}, exit code {self.process.poll()}:\n{self.tail()}"

    def ended_before(self, text):
        """Waits for a line that has the text or for the end, and says whether the end came first."""
        with self._said:
            self._said.wait_for(lambda: self.said(text) or self._silent, HANG)
            return not self.said(text)

    def wait_until(self, true):
        """Until a condition holds."""
        limit = time.monotonic() + HANG
        while not true():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.tail()}"
            assert time.monotonic() < limit, self.tail()
            time.sleep(0.05)  # what is looked at may be a tree of files, or all processes

    def wait_for_files(self, folder):
        """Until it has written to a folder."""
        before = names_below(folder)
        self.wait_until(lambda: names_below(folder) - before)

    def said(self, text):
        return any(text in line for line in self.lines)

    def tail(self):
        return "".join(self.lines[-40:])

    def below(self, *words):
        """Running processes below this one whose command line has all the words."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                line = " ".join(child.cmdline())
            except psutil.NoSuchProcess:
                continue
            if all(word in line for word in words):
                found.append(child)
        return found

    def kill(self):
        """SIGKILL to the driver: Python, the JVM and what they started."""
        try:
            processes = [psutil.Process(self.process.pid)]
            processes += processes[0].children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(HANG)

    def end(self):
        """Waits for its end and returns the exit code."""
        code = self.process.wait(HANG)
        self._reader.join(HANG)
        return code
