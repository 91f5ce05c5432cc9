"""Time from the command to the first finished step of a training, as one JSON line.

    python -m experiments.benchmark_start --config=configs/simsiam_digits.py --times=3

Starts `experiments.train` several times with an empty folder of compiled programs (`cold`), and as often with a folder
that the cold starts have filled (`warm`), and ends it once the first step is finished. Measured from outside: a run
writes `config.json` once everything is imported, read and built, `summary.json` once its first state is there, and a
line into `metrics.jsonl` once a step is finished; a look every 5 ms finds them. So a line has, in seconds and as
medians over the starts,

    imports      Python and all modules of experiments.train, started for themselves
    built        from the command until the run folder is claimed: imports, the config, the data, the traced step
    state        from there until the first state: its compilation, or reading it back
    first_step   from there until the first step is finished: pictures of the first batch, compilation, the step
    whole        from the command until then

The caches of the operating system and Python's compiled modules are as the starts before left them. Everything behind
`--` is handed to experiments.train as it is.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from experiments import command
from ssl_jax import log
from ssl_jax.types import RunError, UsageError

CONFIG = flags.DEFINE_string("config", "", "The experiment, such as configs/simsiam_digits.py.")
TIMES = flags.DEFINE_integer("times", 3, "Cold starts, and as many warm ones.", lower_bound=1)
LIMIT_SECONDS = flags.DEFINE_float("limit_seconds", 600.0, "How long a start may take.", lower_bound=1.0)
OUT = flags.DEFINE_string("out", "", "A file that the JSON line is appended to as well.")

MARKS = {"built": "config.json", "state": "summary.json", "first_step": "metrics.jsonl"}
_LOOK_SECONDS = 0.005


def main(arguments):
    """Starts the training again and again and prints the line."""
    words = arguments[1:]
    if not CONFIG.value or any(not word.startswith("--config.") for word in words):
        raise UsageError(
            "needs --config, and overrides behind two dashes: "
            "python -m experiments.benchmark_start --config=configs/NAME.py -- --config.data.batch_size=64"
        )
    found = {"cold": [], "warm": [], "imports": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for number in range(TIMES.value):
            for temperature in ("cold", "warm"):
                place = folder / f"{temperature}_{number}"
                # Each warm start reads what the cold one before it compiled.
                found[temperature].append(start(words, place, folder / f"compiled_{number}"))
            found["imports"].append(_import_seconds())
    line = {
        "config": CONFIG.value,
        "imports": _median(found["imports"]),
        **{
            temperature: {part: _median([start[part] for start in found[temperature]]) for part in (*MARKS, "whole")}
            for temperature in ("cold", "warm")
        },
        "whole_range": {
            temperature: [round(function(start["whole"] for start in found[temperature]), 3) for function in (min, max)]
            for temperature in ("cold", "warm")
        },
        "times": TIMES.value,
        **log.environment(),
    }
    text = json.dumps(line)
    command.tell(text, OUT.value)


def start(words: list[str], workdir: pathlib.Path, compiled: pathlib.Path) -> dict[str, float]:
    """Seconds of each part of one start, which is ended then.

    Args:
        words: overrides of the config.
        workdir: the run folder, new.
        compiled: the folder of compiled programs.

    Raises:
        RunError: if the training ends or takes too long before its first step is finished.
    """
    line = [sys.executable, "-m", "experiments.train", f"--config={CONFIG.value}", f"--workdir={workdir}"]
    line += [*words, "--config.duration=3", "--config.log_every=1"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_ENABLE_COMPILATION_CACHE": "true"}
    seen: dict[str, float] = {}
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        child = subprocess.Popen(line, env=environment, stdout=said, stderr=said)
        try:
            while len(seen) < len(MARKS):
                ended, now = child.poll() is not None, time.perf_counter() - began
                for part, file in MARKS.items():
                    if part not in seen and _holds_something(workdir / file):
                        seen[part] = now
                if len(seen) < len(MARKS) and (ended or now > LIMIT_SECONDS.value):
                    said.seek(0)
                    last = (said.read().strip().splitlines() or ["it said nothing"])[-1]
                    how = "ended" if ended else f"took more than {LIMIT_SECONDS.value:.0f} s"
                    raise RunError(f"the training {how} before its first step was finished: {last}")
                time.sleep(_LOOK_SECONDS)
        finally:
            child.kill()
            child.wait()
    parts = dict(
        zip(MARKS, (seen["built"], seen["state"] - seen["built"], seen["first_step"] - seen["state"]), strict=True)
    )
    return {**parts, "whole": seen["first_step"]}


def _holds_something(file):
    return file.exists() and file.stat().st_size > 0


def _import_seconds():
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import experiments.train"], check=True)
    return time.perf_counter() - began


def _median(values):
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    command.run(main)
