"""How long `sparkrec look` takes on a large log of text, and its memory.

    python bench/look.py --gb 10 --out /tmp/look

A clickstream of 200,000 invented rows is written over and over into one file until it has the size.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

HEADER = "event_time,event_type,product_id,category_id,brand,price,user_id,user_session\n"
TYPES = ("view", "view", "cart", "purchase")


def rows(n: int, seed: int) -> bytes:
    """Rows of a shop's events, as text."""
    draw = random.Random(seed)
    return "".join(
        f"2019-10-{1 + i % 28:02d} {i % 24:02d}:{i % 60:02d}:00 UTC,{TYPES[i % 4]},{draw.randrange(10**6)},{i % 97},"
        f"brand{i % 50},{i % 500}.99,{draw.randrange(10**7)},{draw.getrandbits(64):x}\n"
        for i in range(n)
    ).encode()


def main() -> int:
    """Writes the log, looks at it, prints seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gb", type=float, default=10.0)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder with room for the log")
    given = parser.parse_args()
    log = given.out / "log" / "events.csv"
    log.parent.mkdir(parents=True)
    block = rows(200_000, seed=1)
    with log.open("wb") as file:
        file.write(HEADER.encode())
        while file.tell() < given.gb * 1e9:
            file.write(block)
    began = time.monotonic()
    command = [sys.executable, "-m", "sparkrec.cli", "look", str(log.parent), "--out", str(given.out / "first")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{log.stat().st_size / 1e9:.1f} GB: {seconds:.1f} s, {peak:.0f} MB")
    log.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
