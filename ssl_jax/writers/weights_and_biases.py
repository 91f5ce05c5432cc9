"""A run on Weights & Biases, online or kept for later; wandb is imported when a run starts."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from ssl_jax import log, types

_LATE_STEPS = 4
_INIT_SECONDS, _FINISH_SECONDS = 20.0, 60.0
_MOST_WAITING = 2000
"""Calls that may wait for Weights & Biases; what comes on top is not sent, or a hanging one would fill the memory."""


@dataclasses.dataclass(frozen=True)
class WandB:
    """Weights & Biases: config, curves, pictures, summary, alarms as alerts; the same run id in every resume.

    Starting raises `types.UsageError` where wandb is not installed. `"online"` without a key, or where nobody answers,
    goes on offline and says so. Weights & Biases takes no step twice: an online run that goes back to a checkpoint
    keeps its first values there.

    Below `wandb agent` the run is the sweep's: its id and project are the agent's, and a folder that holds another run
    of Weights & Biases is a `types.UsageError`. The notes of a run name the paper of the config's `experiment`.

    Attributes:
        project, name: as Weights & Biases means them; without a name it makes one up.
        group, tags: the same; left empty, those of the config's section `experiment` (`loop.Experiment`).
        mode: `"offline"` writes below the run folder and needs no account.
    """

    project: str = "ssl_jax"
    mode: Literal["online", "offline"] = "offline"
    group: str = ""
    tags: tuple[str, ...] = ()
    name: str = ""

    def start(self, run: types.Run) -> types.Writer:
        if importlib.util.find_spec("wandb") is None:
            raise types.UsageError("writer WandB: wandb is not installed; pip install wandb, or leave the writer out")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline, it would still look up a name on the network
        import wandb

        sweep = {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= os.environ.keys()
        run_id = _run_id(run.folder, os.environ["WANDB_RUN_ID"] if sweep else None)
        experiment = run.config.get("experiment") or {}
        mode = self.mode
        try:
            has_key = mode == "offline" or wandb.login(prompt=False, verify=False)
        except wandb.Error:
            has_key = False  # what stands for one is none
        if not has_key:
            mode = "offline"
            log.say(
                "W&B has no API key here, so this run is kept offline; to send it later: "
                f"wandb login && wandb sync {run.folder}/wandb/offline-run-*-{run_id}"
            )
        arguments = {
            # In a sweep wandb takes both from its agent, and warns where they are given.
            "project": None if sweep else self.project,
            "id": None if sweep else run_id,
            "group": self.group or experiment.get("group") or None,
            "tags": self.tags or tuple(experiment.get("tags", ())),
            "notes": experiment.get("paper") or None,
            "name": self.name or None,
            "resume": "allow",
            "dir": run.folder,
            "config": log.plain(run.config),
            "settings": wandb.Settings(
                init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS, finish_timeout_raises=True
            ),
        }
        send = f"wandb sync {run.folder}/wandb/{{}}run-*-{run_id}"
        try:
            started = wandb.init(mode=mode, **arguments)
        except (wandb.Error, TimeoutError) as error:
            reason = " ".join(str(error).split())
            if mode == "offline":
                raise types.RunError(f"W&B did not start ({reason}): leave the writer out") from error
            mode = "offline"
            log.say(
                f"W&B does not answer ({reason}), so this run is kept offline; "
                f"to send it later: {send.format('offline-')}"
            )
            try:
                wandb.teardown()  # or its process would hold the run's id
                started = wandb.init(mode=mode, **arguments)
            except (wandb.Error, TimeoutError) as offline:
                reason = " ".join(str(offline).split())
                raise types.RunError(f"W&B did not start ({reason}): leave the writer out") from offline
        send = send.format("offline-" if mode == "offline" else "")
        return WandBWriter(started, make_image=wandb.Image, tear_down=wandb.teardown, send=send)


def _run_id(folder: pathlib.Path, given: str | None) -> str:
    """The id of the folder's run, kept in `wandb_id.txt`: the one that a sweep gives, or a fresh one.

    Raises UsageError where the folder holds another run than the one given.
    """
    path = folder / "wandb_id.txt"
    if not path.exists():
        with log.writing(path):
            folder.mkdir(parents=True, exist_ok=True)
        log.replace(path, (given or secrets.token_hex(4)) + "\n")
    kept = path.read_text(encoding="utf-8").strip()
    if given and given != kept:
        raise types.UsageError(
            f"{folder} holds run {kept} of W&B, and the sweep's agent asks for {given}: give each run a folder of its "
            "own, --workdir=FOLDER/$WANDB_RUN_ID in the sweep's command"
        )
    return kept


class WandBWriter:
    """What `WandB` starts; `arrays` are not sent.

    Weights & Biases drops what comes for an earlier step than its newest, while training metrics are fetched late: rows
    wait here until no earlier one can come. Everything is handed over by a thread of its own, so that no training waits
    for it, and whatever fails there costs the run a sentence and nothing else: the run folder holds the same numbers.
    """

    def __init__(self, started: Any, *, make_image: Any, tear_down: Callable[[], None], send: str):
        """Args:
        started: what `wandb.init` gave.
        make_image: from uint8 [h, w, 3] to what its `log` takes.
        tear_down: ends what wandb runs beside this process.
        send: the command that sends what was kept on this machine.
        """
        self._started, self._make_image, self._tear_down, self._send_later = started, make_image, tear_down, send
        self._rows: dict[int, dict[str, Any]] = {}
        self._flush_at = math.inf
        self._said: set[str] = set()
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def progress(self, step: int) -> None:
        if step >= self._flush_at:
            self._send(step - _LATE_STEPS)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._row(step, {name: float(value) for name, value in values.items()})

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._row(step, images)

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing: the run folder holds them."""

    def alarm(self, step: int, sentence: str) -> None:
        self._hand_over(lambda: self._started.alert(title=f"alarm at step {step}", text=sentence, level="WARN"))

    def summary(self, values: Mapping[str, Any]) -> None:
        plain = log.plain(values)
        self._hand_over(lambda: self._started.summary.update(plain))

    def close(self) -> None:
        """Sends the rest; after `_FINISH_SECONDS` and a little it gives up and says how to send it later."""
        until = time.monotonic() + _FINISH_SECONDS + 5
        self._send(math.inf)
        for call in (self._started.finish, None):
            with contextlib.suppress(queue.Full):
                self._waiting.put(call, timeout=max(until - time.monotonic(), 0.01))
        self._thread.join(max(until - time.monotonic(), 0.01))
        if self._thread.is_alive():
            self._say_once("it took too long")
            _kill_service()
            # wandb would do so when Python ends, without a limit and with a traceback.
            ending = threading.Thread(target=self._try, args=(self._tear_down,), daemon=True)
            ending.start()
            ending.join(5)

    def _row(self, step: int, values: Mapping[str, Any]) -> None:
        self._rows.setdefault(step, {}).update(values)
        self._flush_at = min(self._rows) + _LATE_STEPS

    def _send(self, until: float) -> None:
        for step in sorted(step for step in self._rows if step <= until):
            row = self._rows.pop(step)
            self._hand_over(lambda row=row, step=step: self._log(row, step))
        self._flush_at = min(self._rows) + _LATE_STEPS if self._rows else math.inf

    def _log(self, row: Mapping[str, Any], step: int) -> None:
        pictures = {name: self._make_image(value) for name, value in row.items() if isinstance(value, np.ndarray)}
        self._started.log({**row, **pictures}, step=step)

    def _hand_over(self, call: Callable[[], None] | None) -> None:
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._say_once(f"{_MOST_WAITING} calls wait")

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            self._try(call)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._say_once(" ".join(f"{type(error).__name__}: {error}".split()))

    def _say_once(self, reason: str) -> None:
        if not self._said:
            log.say(
                f"W&B does not take all of this run ({reason}); the run folder has everything, and what W&B kept here "
                f"goes with: {self._send_later}"
            )
        self._said.add(reason)


def _kill_service() -> None:
    """Kills the process that wandb runs beside this one, which hangs, so that nothing waits for it."""
    for children in pathlib.Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            for child in children.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if b"wandb-core" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)
