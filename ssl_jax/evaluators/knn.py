"""Nearest-neighbour classification of the frozen features, by the two protocols that papers report."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import metrics, types
from ssl_jax.analysis import neighbours

_COLUMNS = 8
_THUMBNAIL_PX = 64
_FRAME_PX = 3
_RIGHT = np.array([40, 160, 60], np.uint8)
_WRONG = np.array([210, 50, 45], np.uint8)


@dataclasses.dataclass(frozen=True)
class KNN:
    """Accuracy on `test` when each image takes the class of its neighbours in `train`, by cosine similarity.

    Scalars, all in [0, 1]; the number in a name is that of the neighbours:
    - `accuracy_weighted_200`: votes weighted by exp(similarity / temperature), the protocol of Wu et al. 2018 (arXiv
      1805.01978) that SimSiam's monitor and lightly report with 200 neighbours and temperature 0.1; on a set with fewer
      images a class than voters the vote reaches across classes, and the other one is the number to read;
    - `accuracy_cosine_10`: plain majority, a draw going to the class of larger summed similarity.

    The picture `neighbours` shows one test image a row, then its 8 nearest training images, framed
    green where the class is the test image's and red where not.

    Attributes:
        train: the labelled images that vote.
        test: the labelled images that are classified.
        preprocess: uint8 images to what the export takes.
        export: the method's export that gives the features.
        weighted_neighbours: voters of the weighted protocol; None leaves it out.
        cosine_neighbours: voters of the majority protocol; None leaves it out.
        temperature: of the weighted protocol.
        gallery: rows of the picture, test images evenly spread over the set; 0 draws none and saves a second reading
            of both sets.

    Raises:
        UsageError: a set without class names, sets whose class names differ, an unlabelled image, no protocol at all,
            or more neighbours than training images; when called, an unknown export.
    """

    train: types.Examples
    test: types.Examples
    preprocess: Callable
    export: str = "features"
    weighted_neighbours: int | None = 200
    cosine_neighbours: int | None = 10
    temperature: float = 0.1
    gallery: int = 8

    def __post_init__(self):
        for side in ("train", "test"):
            if not getattr(self, side).class_names:
                raise types.UsageError(
                    f"evaluators.knn.KNN: its {side} set has no labels; "
                    "give a labelled split, or leave this evaluator out"
                )
        if self.train.class_names != self.test.class_names:
            raise types.UsageError(
                f"evaluators.knn.KNN: the class names of train ({len(self.train.class_names)}) and test "
                f"({len(self.test.class_names)}) differ; give two splits of one data set"
            )
        if self.weighted_neighbours is None and self.cosine_neighbours is None:
            raise types.UsageError(
                "evaluators.knn.KNN: weighted_neighbours and cosine_neighbours are both None; set at least one"
            )
        for field in ("weighted_neighbours", "cosine_neighbours"):
            count = getattr(self, field)
            if count is not None and not 1 <= count <= self.train.examples:
                raise types.UsageError(
                    f"evaluators.knn.KNN: {field}={count}, but the train set has {self.train.examples} images; "
                    f"ask for 1 to {self.train.examples}, or None to leave it out"
                )
        if not self.temperature > 0:
            raise types.UsageError(f"evaluators.knn.KNN: temperature={self.temperature}; ask for one above 0, say 0.1")
        for side in ("train", "test"):
            missing = np.count_nonzero(getattr(self, side).labels() < 0)
            if missing:
                raise types.UsageError(
                    f"evaluators.knn.KNN: {missing} images of its {side} set have no label; give a labelled split"
                )

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """Scalars as the class says, and the picture `neighbours`."""
        if self.export not in exports:
            raise types.UsageError(
                f"evaluators.knn.KNN: no export {self.export!r} in this method, which has {', '.join(sorted(exports))}"
            )

        def features(images):
            result = exports[self.export](state, images, self.preprocess)
            return result.reshape(len(result), -1)

        train, train_labels = metrics.collect(features, self.train.batches())
        test, test_labels = metrics.collect(features, self.test.batches())
        classes = len(self.train.class_names)
        most = max(self.weighted_neighbours or 1, self.cosine_neighbours or 1, min(_COLUMNS, len(train)))
        # One search serves both protocols and the picture: the first k of the most are the k nearest.
        indices, similarities = neighbours.nearest(train, test, most)
        votes = train_labels[indices]
        scalars = {}
        if self.cosine_neighbours is not None:
            k = self.cosine_neighbours
            found = neighbours.majority_vote(votes[:, :k], similarities[:, :k], classes=classes)
            scalars[f"accuracy_cosine_{k}"] = float(np.mean(found == test_labels))
        if self.weighted_neighbours is not None:
            k = self.weighted_neighbours
            found = neighbours.weighted_vote(
                votes[:, :k], similarities[:, :k], classes=classes, temperature=self.temperature
            )
            scalars[f"accuracy_weighted_{k}"] = float(np.mean(found == test_labels))
        images = {}
        rows = min(self.gallery, len(test))
        if rows > 0:
            chosen = np.linspace(0, len(test) - 1, rows).round().astype(np.int64)
            nearest = indices[chosen, :_COLUMNS]
            images["neighbours"] = _gallery(
                metrics.pick(self.test.batches(), chosen),
                metrics.pick(self.train.batches(), nearest.reshape(-1)),
                train_labels[nearest] == test_labels[chosen][:, None],
            )
        return types.Report(scalars=scalars, images=images)


def _gallery(queries: np.ndarray, nearest: np.ndarray, right: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: a row for each query [r, ...], then its neighbours [r * c, ...] framed by `right` [r, c]."""
    rows, columns = right.shape
    white = np.full((rows, 3), 255, np.uint8)
    queries = _framed(_thumbnails(queries), white)
    nearest = _framed(_thumbnails(nearest), np.where(right.reshape(-1, 1), _RIGHT[None, :], _WRONG[None, :]))
    height, width = (max(size) for size in zip(queries.shape[1:3], nearest.shape[1:3], strict=True))
    picture = np.full((rows, height, columns + 1, width, 3), 255, np.uint8)
    picture[:, : queries.shape[1], 0, : queries.shape[2]] = queries
    nearest = nearest.reshape(rows, columns, *nearest.shape[1:]).transpose(0, 2, 1, 3, 4)
    picture[:, : nearest.shape[1], 1:, : nearest.shape[3]] = nearest
    return picture.reshape(rows * height, (columns + 1) * width, 3)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] of about 64 px: small images enlarged by a whole factor, so that their pixels stay sharp."""
    _, height, width, channels = images.shape
    longer = max(height, width)
    if longer > _THUMBNAIL_PX:
        size = tuple(max(1, round(side * _THUMBNAIL_PX / longer)) for side in (height, width))
        shrunk = jax.image.resize(jnp.asarray(images, jnp.float32), (len(images), *size, channels), "linear")
        images = np.clip(np.rint(np.asarray(shrunk)), 0, 255).astype(np.uint8)
    factor = max(1, _THUMBNAIL_PX // longer)
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    return images.repeat(3, axis=3) if channels == 1 else images


def _framed(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The images [n, h, w, 3] inside frames of their colours [n, 3], and a white line around each."""
    count, height, width, _ = images.shape
    framed = np.broadcast_to(
        colours[:, None, None, :], (count, height + 2 * _FRAME_PX, width + 2 * _FRAME_PX, 3)
    ).copy()
    framed[:, _FRAME_PX:-_FRAME_PX, _FRAME_PX:-_FRAME_PX] = images
    return np.pad(framed, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
