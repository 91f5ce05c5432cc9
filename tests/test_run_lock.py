"""Two trainings never share a folder, and no dead one keeps it."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from ssl_jax import run_folder, run_lock
from ssl_jax.types import RunError, UsageError
from tests import runs

HOLD = """
import pathlib, sys, time
from ssl_jax import run_lock
with run_lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    {then}
    time.sleep(600)
"""


def holder(folder, then="pass"):
    """A process that holds the lock of `folder`."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then), folder],
        env=runs.environment(folder),
        cwd=runs.REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child.stdout:
        assert child.stdout.readline() == "held\n"
    return child


def test_a_second_start_is_refused_by_name_until_the_first_is_dead(tmp_path):
    child = holder(tmp_path)
    try:
        with pytest.raises(UsageError) as caught, run_lock.held(tmp_path, hint="or ask the queue"):
            raise AssertionError("both hold it")
        assert re.fullmatch(
            rf"{tmp_path} is being trained by process {child.pid} on {re.escape(socket.gethostname())} since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S+: wait .* --workdir; or ask the queue",
            str(caught.value),
        )
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with run_lock.held(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / run_lock.NAME).read_text()
    with run_lock.held(tmp_path):
        pass


@pytest.mark.parametrize(
    "then",
    [
        "import subprocess; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], close_fds=False)",
        "import os; os.fork() or time.sleep(600)",
    ],
    ids=["started", "forked"],
)
def test_children_do_not_keep_the_lock(tmp_path, then):
    parent = holder(tmp_path, then)
    try:
        deadline = time.monotonic() + 30
        while not (left := children_of(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # a fork lets go of its copy as its first act
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        with run_lock.held(tmp_path):
            assert left
    finally:
        for child in left:
            os.kill(child, signal.SIGKILL)


def children_of(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return [int(word) for word in file.read().split()]


def test_two_in_one_process_are_two(tmp_path):
    with run_lock.held(tmp_path):
        with pytest.raises(UsageError, match=f"process {os.getpid()} on"), run_lock.held(tmp_path):
            pass
        with pytest.raises(UsageError), run_lock.held(tmp_path):  # a refusal lets nothing go
            pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def none(number, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with run_lock.held(tmp_path):
        pass
    assert capsys.readouterr().err.startswith(f"the file system of {tmp_path} has no locks (No locks available)")
    monkeypatch.setattr(fcntl, "flock", lambda number, how: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(RunError, match=r"cannot lock .*broken"), run_lock.held(tmp_path):
        pass


def test_a_refused_start_touches_nothing(tmp_path):
    run = tmp_path / "run"
    with run_folder.training(run, {"seed": 0}):
        before = {path: path.read_bytes() for path in run.iterdir()}
        with pytest.raises(UsageError, match="being trained by"), run_folder.training(run, {"seed": 0, "log_every": 5}):
            pass
        assert before == {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UsageError, match="seed is 0 there, 1 here"), run_folder.training(run, {"seed": 1}):
        pass
    assert before == {path: path.read_bytes() for path in run.iterdir()}
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds no run"), run_folder.training(tmp_path, {"seed": 0}):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"run", "thesis.txt"}


def test_a_kill_right_after_the_lock_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / run_lock.NAME).write_text("process 1 on nowhere since ever\n")
    with run_folder.training(tmp_path, {"seed": 0}):
        assert (tmp_path / "config.json").is_file()
