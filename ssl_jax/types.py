"""The words every room shares: the state, the protocols, durations and the two kinds of failure."""

import dataclasses
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NewType, Protocol

import flax.struct
import jax
import numpy as np

Batch = Mapping[str, jax.Array]
Metrics = Mapping[str, jax.Array]
Export = Callable[["TrainState", jax.Array], jax.Array]
Steps = NewType("Steps", int)
"""A count of training steps; a config may write it as text, see `build.Clock.steps`."""


class UsageError(Exception):
    """What the user asked for cannot be done as asked: one line that names the thing, the place and the way out."""


class RunError(Exception):
    """The request was sound, yet the run cannot go on: one line that names the thing, the place and the way out."""


@flax.struct.dataclass
class TrainState:
    """Everything that training changes, as plain arrays; one type for all methods.

    Attributes:
        step: int32 scalar, the number of updates made so far.
        params: parameters by network name.
        stats: batch statistics by network name.
        opt: optimiser state by optimiser name.
        memory: whatever else a method carries (image pools), as arrays of fixed size; averaged copies of a network are
            networks themselves, so that scripts read them by name.
    """

    step: jax.Array
    params: dict[str, Any]
    stats: dict[str, Any]
    opt: dict[str, Any]
    memory: dict[str, Any]


Graft = Callable[[TrainState], Mapping[str, Mapping[str, Any]]]
"""From the spec of a first state to what replaces its fresh numbers: `{"params": {network: tree}, "stats": ...}`."""


class Method(Protocol):
    """A way of learning: pure functions over a `TrainState`."""

    def init(self, key: jax.Array, spec: Mapping[str, jax.ShapeDtypeStruct]) -> TrainState:
        """The state before the first update; `spec` describes one preprocessed batch."""

    def step(self, state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        """One update of every network the method owns; metrics are float32 scalars."""

    @property
    def exports(self) -> Mapping[str, Export]:
        """What others may ask of a trained state, as functions of (state, preprocessed images)."""


class Feed(Protocol):
    """Training batches whose content is a function of (seed, step) alone.

    Attributes:
        examples: images in one pass.
        batch_size: images in a global batch.
        spec: shapes and types of a batch.
        chosen: which images of its data set a feed takes, as arrays for the run folder; {} where it takes all.
    """

    examples: int
    batch_size: int
    spec: Mapping[str, jax.ShapeDtypeStruct]
    chosen: Mapping[str, np.ndarray]

    def batches(self, mesh: jax.sharding.Mesh, seed: int, first_step: int) -> Generator[Batch, None, None]:
        """Global batches split over all devices of the mesh, from `first_step` on, without end; close it when done."""


class Examples(Protocol):
    """A labelled or unlabelled set that is read once through, in order, in masked batches of one shape."""

    examples: int
    class_names: tuple[str, ...]

    def labels(self) -> np.ndarray:
        """int32 [n], -1 where unknown; costs no decoding."""

    def batches(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Host batches: `image` uint8 [b, h, w, c], `label` int32 [b] (-1 if unknown), `mask` bool [b]."""


class Extractor(Protocol):
    """A fixed network whose features tell images apart, for distances between sets of them.

    Attributes:
        name: what it is, such as "inception" or "encoder"; the names of numbers depend on it.
        digest: of its weights and of how images are prepared for it.
        resize: in words, what is done to the size of images.
        class_names: what the logits stand for; () where there are none of this project.
    """

    name: str
    digest: str
    resize: str
    class_names: tuple[str, ...]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """From uint8 [b, h, w, c] to features float32 [b, d], and logits float32 [b, k], None where it has none."""

    def describe(self) -> str:
        """Words that say which network it is, for the user's eyes."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What an evaluator found.

    Attributes:
        scalars: numbers that become a curve.
        images: pictures, uint8 [h, w, 3].
        arrays: what a page draws later; each becomes an entry of one `.npz` file.
        summary: entries of `summary.json`.
        alarms: sentences for the user, each naming a symptom and what to try.
    """

    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    images: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    alarms: tuple[str, ...] = ()


class Evaluator(Protocol):
    """Looks at a state and reports.

    `exports[name](state, inputs, preprocess)` runs compiled on the mesh: `inputs` is a host array (images as uint8) or
    a tree of such, all of one length, `preprocess` a pure function from it to what the export takes, and the answer is
    a host array. `untrained()` gives the state the run began with.
    """

    def __call__(
        self, exports: Mapping[str, Callable[..., np.ndarray]], state: TrainState, untrained: Callable[[], TrainState]
    ) -> Report: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """What a writer may know of the run it writes for.

    Attributes:
        folder: the run folder.
        config: the resolved config, as nested dicts of literals.
        first_step: 0, or the step that the run resumes from: what was written for later steps is void.
        total_steps: the step at which training ends.
        steps_per_epoch: updates in one pass over the data.
        batch_size: images in one global batch.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    first_step: int
    total_steps: int
    steps_per_epoch: int
    batch_size: int


class Writer(Protocol):
    """Takes what a run says and puts it somewhere; made by a setting object's `start(run)`."""

    def progress(self, step: int) -> None:
        """Called once per update, so it must cost microseconds."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """`values` holds `epoch`, `images`, `seconds` beside names such as `train/loss`, `eval/knn/accuracy`."""

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures by name (`eval/knn/neighbours`), uint8 [h, w, 3]."""

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """What a page draws later, by name."""

    def alarm(self, step: int, sentence: str) -> None:
        """A symptom and what to try, for the user's eyes."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Entries that `summary.json` takes over, later ones replacing earlier ones of the same name."""

    def close(self) -> None:
        """Called once at the end, after a failure as well."""


class WriterSettings(Protocol):
    """A writer as a config describes it."""

    def start(self, run: Run) -> Writer: ...
