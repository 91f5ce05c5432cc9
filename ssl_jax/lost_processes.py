"""How a process ends when another one is lost: in one line and with an exit code, not in a dump of XLA's.

XLA ends a process that has lost the others from one of its own threads: with many lines on the error stream, then with
SIGABRT, which Python can neither catch nor survive. So what is written there below Python is read here first, and the
line about lost processes becomes the process's last.
"""

import atexit
import ctypes
import faulthandler
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_LOG = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ ([\w./]+):\d+\]")
_OF_COORDINATION = ("coordination_service", "preemption_sync_manager", "client.h")
_FATAL = "JAX distributed service detected fatal errors"

_leaving = threading.Lock()


def leave(line: str, code: int) -> NoReturn:
    """Ends the process at once, whatever its threads are waiting for, with one line on the error stream."""
    with _leaving:  # never let go: of two threads that end the process, one speaks
        sys.stdout.flush()
        print("error: " + " ".join(line.split()), file=sys.stderr, flush=True)
        os._exit(code)


def watch(lost: Callable[[str], tuple[str, int]]) -> None:
    """From now on, `leave(*lost(reason))` where XLA would abort because it gave the other processes up.

    Args:
        lost: from XLA's reason, such as "DEADLINE_EXCEEDED: Deadline Exceeded", to the line and the exit code.
    """
    stream = os.dup(2)
    reader, writer = os.pipe()
    sys.stderr.flush()
    sys.stderr = os.fdopen(stream, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.dup2(writer, 2)
    os.close(writer)
    atexit.register(os.dup2, stream, 2)  # what is said after the thread below has ended
    if faulthandler.is_enabled():
        faulthandler.enable(stream)
    # The aborting thread sleeps for as many seconds as SIGABRT's number, 6, in which the thread below ends the process.
    # A handler of Python's would never run: the abort comes first.
    libc = ctypes.CDLL(None)
    libc.signal(ctypes.c_int(signal.SIGABRT), ctypes.cast(libc.sleep, ctypes.c_void_p))
    threading.Thread(target=_read, args=(reader, stream, lost), daemon=True).start()


def _read(reader, stream, lost):
    dropped = False
    with open(reader, "rb") as lines:
        for raw in lines:
            line = raw.decode(errors="replace")
            if _FATAL in line:
                leave(*lost(line.partition("absl::Status: ")[2].strip()))
            begins = _LOG.match(line)
            dropped = any(name in begins[1] for name in _OF_COORDINATION) if begins else dropped
            if not dropped:
                os.write(stream, raw)
