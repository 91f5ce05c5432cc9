"""A run as a page: `report.html` in the run folder, written when the run ends."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import log, report, types


@dataclasses.dataclass(frozen=True)
class Page:
    """Writes `report.html` into the run folder when the run ends; belongs after `files.Files`, whose files it reads.

    Where the page cannot be made, as without matplotlib or from a damaged file, it says so and writes nothing.
    """

    def start(self, run: types.Run) -> types.Writer:
        return PageWriter(run.folder)


class PageWriter:
    """What `Page` starts: everything but `close` is left to `files.Files`."""

    def __init__(self, folder: pathlib.Path):
        self._folder = folder

    def progress(self, step: int) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None: ...

    def alarm(self, step: int, sentence: str) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def close(self) -> None:
        try:
            print(f"report: {report.write(self._folder)}", flush=True)
        except (types.UsageError, types.RunError) as error:  # a run that is done must not fail for want of its page
            log.say(f"no report.html: {error}")
