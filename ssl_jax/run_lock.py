"""One training a run folder: a lock that ends with the process that holds it, however that ends."""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from ssl_jax import log
from ssl_jax.types import RunError, UsageError

NAME = "run.lock"
"""The lock's file in a run folder. It stays when the run ends: removed, two starts could hold a lock each."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[int] = set()


@contextlib.contextmanager
def held(folder: pathlib.Path, hint: str = "") -> Iterator[None]:
    """Holds the lock of a run folder, which exists, while the block runs.

    The kernel lets it go with the process, so a run that was killed locks nobody out; children do not inherit it. Who
    only reads a run never asks for it. On a file system without locks (an old NFS, Lustre without `flock`) the block
    runs unprotected, and a sentence says so: a cluster that has no other disk must be able to train.

    Args:
        folder: the run folder.
        hint: what the refusal ends with, such as words on a cluster's queue; may be empty.

    Raises:
        UsageError: where another process holds it, on whatever machine.
        RunError: where the file cannot be written.
    """
    path = folder / NAME
    with log.writing(path):
        if path.is_symlink():
            raise UsageError(f"{path} is a link, which no run makes: remove it, or give another --workdir")
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    _held.add(number)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(number, 1000).decode(errors="replace").strip() or "another process"
            raise UsageError(
                f"{folder} is being trained by {holder}: wait for its end or stop it, or give another --workdir"
                + (f"; {hint}" if hint else "")
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise RunError(f"cannot lock {path}: {error.strerror}; choose another folder") from error
            log.say(
                f"the file system of {folder} has no locks ({error.strerror}): "
                "start no second run on this folder, nothing would refuse it"
            )
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        with log.writing(path):
            os.ftruncate(number, 0)
            os.pwrite(number, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        yield
    finally:
        if number in _held:
            _held.remove(number)
            os.close(number)


def _let_go() -> None:
    """In a forked child: closes its copies, or the lock would live as long as the child."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
