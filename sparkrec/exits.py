"""How a program of this package ends: its exit code, and one line for whatever is no defect."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from sparkrec.errors import UserError
from sparkrec.processes import ending_in_one_line

OK, USER_ERROR, INTERRUPTED, PIPE_CLOSED = 0, 2, 130, 141
ENDED = 128  # and the signal's number


def main_guard(run: Callable[[], int | None]) -> int:
    """Runs a program and returns its exit code.

    A :class:`UserError` becomes one line on standard error and 2, a closed pipe (``| head``) 141; Ctrl-C, SIGTERM and
    SIGHUP one line and 130, 143 and 129. Any other exception is a defect and keeps its stack trace.

    Args:
        run: The program; it returns its exit code, None for 0.
    """
    with ending_in_one_line() as heard:
        try:
            code = _guarded(run)
        except BaseException:
            if not heard:
                raise
        return ENDED + heard[0] if heard else code  # whatever broke off because of it


def _guarded(run: Callable[[], int | None]) -> int:
    try:
        code = run() or OK
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"sparkrec: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("sparkrec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer has no reader: let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
