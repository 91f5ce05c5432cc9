"""What can befall a run from around it, each as a trial: a full disk, a dead fellow process, a W&B that is silent."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

from experiments.fault_runs import (
    STEPS,
    Outcome,
    Setting,
    differences,
    ended_well,
    kept,
    logged,
    wait_for,
)
from experiments.fault_trials import resumed
from ssl_jax.types import RunError

PROCESSES = 2
SURVIVOR_SECONDS = 240.0
"""How long a process whose fellow died may go on: JAX itself notices only after missed heartbeats."""

_ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$1"k tmpfs "$2" || exit 77
place=$2 kept=$3
shift 3
"$@"
code=$?
cp -a "$place/." "$kept"
exit $code
"""


def full_disk(setting: Setting, run: pathlib.Path) -> Outcome:
    """The disk of the run folder is full, at any of the writes; then the run goes on where there is room."""
    whole = setting.unbroken()
    size_kb = setting.draw.randint(20, int(1.1 * _size_kb(whole)))
    place = run.with_name(run.name + "_disk")
    code, said = _on_a_small_disk(setting, size_kb, place, run, setting.command(place / "run"))
    run_there = run / "run"
    if code == 0:
        return Outcome("it fitted", faults=(*ended_well(code, said, (0,)), *differences(whole, run_there)))
    faults = ended_well(code, said, (1,), "disk is full")
    lost = logged(run_there) - max(kept(run_there), default=0) if run_there.is_dir() else 0
    return Outcome("full", max(lost, 0), (*faults, *resumed(setting, run_there, whole)))


def full_disk_preparing(setting: Setting, run: pathlib.Path) -> Outcome:
    """The disk of the data sets is full while one is made; then there is room."""
    whole = setting.unbroken()
    size_kb = setting.draw.randint(20, int(1.1 * _size_kb(setting.folder / "data")))
    place, data = run.with_name(run.name + "_disk"), run.with_name(run.name + "_data")
    code, said = _on_a_small_disk(
        setting, size_kb, place, data, setting.command(run, f"--config.data.data_dir={place}")
    )
    faults = ended_well(code, said, (0,)) if code == 0 else ended_well(code, said, (1,), "is full")
    if code:
        faults += resumed(setting, run, whole, setting.command(run, f"--config.data.data_dir={data}"))
    shutil.rmtree(data)
    return Outcome("full" if code else "it fitted", faults=(*faults, *([] if code else differences(whole, run))))


def failing_disk(setting: Setting, run: pathlib.Path) -> Outcome:
    """Files that grow beyond some size cannot be written, as on a disk that fails without being full."""
    whole, blocks = setting.unbroken(), setting.draw.randint(1, 120)
    limited = ["sh", "-c", 'ulimit -f "$0" && exec "$@"', str(blocks), *setting.command(run)]
    # Compiled programs are large files too, and where they are kept is no part of the run.
    code, said = setting.finished(limited, env={"JAX_ENABLE_COMPILATION_CACHE": "false"})
    if code == 0:
        return Outcome("no file grew so large", faults=tuple(differences(whole, run)))
    faults = ended_well(code, said, (1,), str(run))
    return Outcome("refused", faults=(*faults, *resumed(setting, run, whole)))


def kill_one_process(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL to one of two processes that train together; then the same command in both."""
    whole = setting.folder / "unbroken_pair"
    if logged(whole) < STEPS:
        _both_finished(setting, whole)
    goal, victim = setting.draw.randint(3, STEPS - 6), setting.draw.randrange(PROCESSES)
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(setting.started(words)) for words in _pair(setting, run)]
        if not wait_for(pair[0][0], lambda: logged(run) >= goal):
            return Outcome("ended before it", faults=tuple(said()[-300:] for _, said in pair))
        pair[victim][0].send_signal(signal.SIGKILL)
        began, (survivor, said) = time.monotonic(), pair[1 - victim]
        try:
            survivor.wait(timeout=SURVIVOR_SECONDS)
            seconds, told = time.monotonic() - began, said()
            errors = [line for line in told.splitlines() if line.startswith("error: ")]
            happened = f"process {victim} killed; the other ended with {survivor.returncode}: {'; '.join(errors)}"
            faults = ended_well(survivor.returncode, told, (1,))
        except subprocess.TimeoutExpired:
            happened, seconds = f"process {victim} killed", None
            faults = [f"the other still runs after {SURVIVOR_SECONDS:.0f} s"]
    lost = logged(run) - max(kept(run), default=0)
    try:
        _both_finished(setting, run)
        faults += differences(whole, run)
    except RunError as error:
        faults.append(str(error))
    return Outcome(happened, max(lost, 0), tuple(faults), seconds)


def wandb_unreachable(setting: Setting, run: pathlib.Path) -> Outcome:
    """W&B is refused a connection."""
    return _without_wandb(setting, run, "http://127.0.0.1:9")


def wandb_hanging(setting: Setting, run: pathlib.Path) -> Outcome:
    """W&B's server takes every connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        taken = []
        threading.Thread(target=_take_all, args=(server, taken), daemon=True).start()
        try:
            return _without_wandb(setting, run, f"http://127.0.0.1:{server.getsockname()[1]}")
        finally:
            for connection in taken:
                connection.close()


def _on_a_small_disk(setting, size_kb, place, left, words):
    """The exit code and error stream of a command that sees a disk of that size at `place`; `left` is its content."""
    for folder in (place, left):
        folder.mkdir()
    prefix = ["unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount"]
    code, said = setting.finished(
        [*prefix, "sh", "-c", _ON_A_SMALL_DISK, "sh", str(size_kb), str(place), str(left), *words]
    )
    place.rmdir()
    if code == 77:
        raise RunError("this system lets no user mount a small disk of his own; leave the trials of full disks out")
    return code, said


def _size_kb(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1024


def _pair(setting, run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        setting.command(run, f"--coordinator={address}", f"--processes={PROCESSES}", f"--process={process}")
        for process in range(PROCESSES)
    ]


def _both_finished(setting, run):
    with contextlib.ExitStack() as stack:
        pair = [stack.enter_context(setting.started(words)) for words in _pair(setting, run)]
        codes = [child.wait(timeout=SURVIVOR_SECONDS) for child, _ in pair]
        if any(codes):
            raise RunError(f"two processes ended with {codes}: {' '.join(said()[-200:] for _, said in pair)}")


def _without_wandb(setting, run, address) -> Outcome:
    env = {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online"}
    env |= {"NETRC": os.devnull, "WANDB_CONFIG_DIR": str(setting.folder / "wandb")}
    began = time.monotonic()
    code, said = setting.finished(setting.command(run, "--wandb=online"), env=env)
    seconds = time.monotonic() - began
    faults = ended_well(code, said, (0,), "W&B does not answer", f"wandb sync {run}/wandb/offline-run-")
    kept_there = list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    faults += [] if kept_there else ["no offline run was kept"]
    return Outcome("kept offline", faults=(*faults, *differences(setting.unbroken(), run)), seconds=seconds)


def _take_all(server, taken):
    while True:
        try:
            taken.append(server.accept()[0])
        except OSError:
            return
