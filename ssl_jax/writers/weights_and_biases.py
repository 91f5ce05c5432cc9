"""A run on Weights & Biases, online or kept for later; wandb is imported when a run starts."""

import dataclasses
import importlib.util
import math
import os
import pathlib
import secrets
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ssl_jax import log, types

_LATE_STEPS = 4


@dataclasses.dataclass(frozen=True)
class WandB:
    """Weights & Biases: config, curves, pictures, summary, alarms as alerts; the same run id in every resume.

    Starting raises `types.UsageError` where wandb is not installed. `"online"` without a key goes on offline and says
    so. Weights & Biases takes no step twice: an online run that goes back to a checkpoint keeps its first values there.

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
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
            log.say(
                "W&B has no API key here, so this run is kept offline; to send it later: "
                f"wandb login && wandb sync {run.folder}/wandb/offline-run-*-{run_id}"
            )
        try:
            started = wandb.init(
                # In a sweep wandb takes both from its agent, and warns where they are given.
                project=None if sweep else self.project,
                id=None if sweep else run_id,
                mode=mode,
                group=self.group or experiment.get("group") or None,
                tags=self.tags or tuple(experiment.get("tags", ())),
                notes=experiment.get("paper") or None,
                name=self.name or None,
                resume="allow",
                dir=run.folder,
                config=log.plain(run.config),
            )
        except wandb.Error as error:
            raise types.RunError(
                f"W&B did not start ({error}): try again, or set the writer's mode to offline"
            ) from error
        return WandBWriter(started, make_image=wandb.Image)


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
    wait here until no earlier one can come.
    """

    def __init__(self, started: Any, *, make_image: Any):
        self._started = started
        self._make_image = make_image
        self._rows: dict[int, dict[str, Any]] = {}
        self._flush_at = math.inf

    def progress(self, step: int) -> None:
        if step >= self._flush_at:
            self._send(step - _LATE_STEPS)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._row(step, {name: float(value) for name, value in values.items()})

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._row(step, {name: self._make_image(picture) for name, picture in images.items()})

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing: the run folder holds them."""

    def alarm(self, step: int, sentence: str) -> None:
        self._started.alert(title=f"alarm at step {step}", text=sentence, level="WARN")

    def summary(self, values: Mapping[str, Any]) -> None:
        self._started.summary.update(log.plain(values))

    def close(self) -> None:
        self._send(math.inf)
        self._started.finish()

    def _row(self, step: int, values: Mapping[str, Any]) -> None:
        self._rows.setdefault(step, {}).update(values)
        self._flush_at = min(self._rows) + _LATE_STEPS

    def _send(self, until: float) -> None:
        for step in sorted(step for step in self._rows if step <= until):
            self._started.log(self._rows.pop(step), step=step)
        self._flush_at = min(self._rows) + _LATE_STEPS if self._rows else math.inf
