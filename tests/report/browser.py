"""A headless Chromium, spoken to over a pipe in its DevTools protocol: no port is opened and no driver is needed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--no-zygote", "--remote-debugging-pipe",
]  # fmt: skip
FINDER = Path(__file__).parents[2] / "infra" / "chromium.py"
PATIENCE_S = 120


def chromium() -> str:
    """The browser's path; the test is skipped where there is none, with the reason."""
    found = subprocess.run([sys.executable, str(FINDER)], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return found.stdout.strip()


class Page:
    """One page and all that it said to the DevTools."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers, self.number, self.session = commands, answers, 0, None
        self.buffer, self.events = b"", []

    def send(self, method: str, **params) -> dict:
        """Sends a command and waits for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def wait_for(self, method: str) -> None:
        while method not in [event["method"] for event in self.events]:
            self._receive()

    def open(self, path: Path, width: int, dark: bool = False, media: str = "screen") -> None:
        """Opens a file and forgets what was said before."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.events = []
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, script: str):
        """What an expression of JavaScript is in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def said(self, *methods: str) -> list[dict]:
        return [event["params"] for event in self.events if event["method"] in methods]

    def _receive(self) -> dict:
        while b"\0" not in self.buffer:
            piece = os.read(self.answers, 1 << 16)
            assert piece, "the browser ended"
            self.buffer += piece
        line, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A browser with an empty profile and one page."""
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    with (profile.parent / "chromium.log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", script, "chromium", chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_commands, write_answers), stdout=log, stderr=log, env={**os.environ, "HOME": str(profile)},
        )  # fmt: skip
    os.close(read_commands)
    os.close(write_answers)
    try:
        page = Page(commands, answers)
        target = page.send("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        yield page
    finally:
        os.close(commands)  # the browser ends when nobody can command it any more
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.kill()
        process.wait()
        os.close(answers)
