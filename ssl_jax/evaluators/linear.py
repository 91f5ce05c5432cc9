"""A quick linear probe on frozen features, beside the same probe on raw pixels and on an untrained encoder."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ssl_jax import metrics, subsets, types
from ssl_jax.analysis import neighbours, pca, pixels, regression

_RAW_PIXELS = "raw_pixels"
_UNTRAINED = "untrained"
# Half a millionth of a nat a row above the minimum: no accuracy moves.
_TOLERANCE = 1e-3
# On many images the search for C costs most, and what penalties differ by is far more than its ten-thousandth of a nat.
_SEARCH_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """L2-regularised multinomial logistic regression on each representation, with few labels and with all.

    The protocol, the same for every representation:
    - features are standardised by mean and deviation over all training images, which takes no labels;
    - a share of every class of the training set is held out. With few labels, each draw takes that many images of every
      class from the rest, the smaller draws inside the larger; the penalty C of each (representation, count) is the one
      of best mean accuracy on the held-out images over all draws, the strongest penalty among equals. So C, one number
      of a short list, has seen more labels than the draw has; the regressions have not;
    - with all labels, C is that of least cross-entropy on the held-out images after fitting on the rest, tried from the
      strongest penalty on until the cross-entropy rises; then all training images are fitted with it. A single fit's
      accuracy on them, unlike the mean over draws, is too coarse to tell neighbouring penalties apart;
    - the test set is asked once for each draw, with the chosen C, and decides nothing;
    - `knn` is the majority of the nearest training images by cosine, on features as they are.

    Summary: `labels_<count>`, `labels_all` and `knn`, each an accuracy in [0, 1] by representation (for draws the
    mean), `labels_<count>_std` the standard deviation over the draws (dividing by their number less one; 0 for a single
    draw), `chosen_penalty` by representation and count, and `knn_neighbours`, the voters of `knn`. Scalars are the same
    accuracies and deviations as `labels_<count>/<representation>`. Arrays, for test images evenly spread over the set:
    `map/<representation>` [n, 2] (principal components of all test features), `map_explained/<representation>` [2]
    (their shares of the variance), `map_labels` [n]; and `map_classes`, the class names. A regression that stopped
    short of its minimum counts as it is, and an alarm names its representation and C.

    Attributes:
        train: the labelled training images.
        test: the labelled test images.
        preprocess: uint8 images to what the export takes.
        export: the method's export that gives the features.
        name: what the trained representation is called in the results.
        labels_per_class: the counts of labels.
        draws: independent draws for each count.
        penalties: the values of C to choose from, scikit-learn's inverse strength.
        baselines: of `raw_pixels` (the stored images over 255 as vectors, at their own size or, above 3,072 numbers,
            shrunk to that many) and `untrained` (the state that the run began with).
        neighbours: voters of `knn`.
        validation_share: the share of every class of the training set that is held out.
        seed: of the held-out images and the draws.
        map_examples: the most test images on a map.

    Raises:
        UsageError: a set without class names, sets whose class names differ, an unlabelled image, an unknown baseline,
            a name that is one, a count, share or list out of range, a class with too few images for a draw; when
            called, an unknown export.
    """

    train: types.Examples
    test: types.Examples
    preprocess: Callable
    export: str = "features"
    name: str = "trained"
    labels_per_class: tuple[int, ...] = (1, 3, 10)
    draws: int = 10
    penalties: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
    baselines: tuple[str, ...] = (_RAW_PIXELS, _UNTRAINED)
    neighbours: int = 10
    validation_share: float = 0.2
    seed: int = 0
    map_examples: int = 1000

    def __post_init__(self):
        here = "evaluators.linear.LinearProbe"
        for side in ("train", "test"):
            if not getattr(self, side).class_names:
                raise types.UsageError(
                    f"{here}: its {side} set has no labels; give a labelled split, or leave this evaluator out"
                )
        if self.train.class_names != self.test.class_names:
            raise types.UsageError(
                f"{here}: the class names of train ({len(self.train.class_names)}) and test "
                f"({len(self.test.class_names)}) differ; give two splits of one data set"
            )
        for baseline in self.baselines:
            if baseline not in (_RAW_PIXELS, _UNTRAINED):
                raise types.UsageError(
                    f"{here}: no baseline {baseline!r}; baselines may hold {_RAW_PIXELS!r} and {_UNTRAINED!r}"
                )
        if self.name in (_RAW_PIXELS, _UNTRAINED):
            raise types.UsageError(f"{here}: name={self.name!r} is a baseline's; call the trained encoder otherwise")
        if not 1 <= self.neighbours <= self.train.examples:
            raise types.UsageError(
                f"{here}: neighbours={self.neighbours}, but the train set has {self.train.examples} images"
            )
        if self.draws < 1 or any(count < 1 for count in self.labels_per_class):
            raise types.UsageError(
                f"{here}: draws={self.draws}, labels_per_class={self.labels_per_class}; each is at least 1"
            )
        if not self.penalties or min(self.penalties) <= 0:
            raise types.UsageError(
                f"{here}: penalties={self.penalties}; give values of C above 0, say (0.01, 0.1, 1.0)"
            )
        if not 0 < self.validation_share < 1:
            raise types.UsageError(f"{here}: validation_share={self.validation_share}; give one between 0 and 1")
        for side in ("train", "test"):
            missing = np.count_nonzero(getattr(self, side).labels() < 0)
            if missing:
                raise types.UsageError(
                    f"{here}: {missing} images of its {side} set have no label; give a labelled split"
                )
        self._check_draws(self.train.labels())

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """The probe's numbers and maps, as the class says."""
        if self.export not in exports:
            raise types.UsageError(
                f"evaluators.linear.LinearProbe: no export {self.export!r} in this method, "
                f"which has {', '.join(sorted(exports))}"
            )
        encode = exports[self.export]
        states = {_UNTRAINED: untrained()} if _UNTRAINED in self.baselines else {}
        states[self.name] = state

        def represent(images):
            rows = {row: encode(each, images, self.preprocess) for row, each in states.items()}
            if _RAW_PIXELS in self.baselines:
                rows[_RAW_PIXELS] = np.asarray(pixels.vectors(images))
            return {row: np.asarray(array, np.float32).reshape(len(array), -1) for row, array in rows.items()}

        train, train_labels = metrics.collect(represent, self.train.batches())
        test, test_labels = metrics.collect(represent, self.test.batches())
        held_out = self._held_out(train_labels)
        draws = self._draws(train_labels, held_out)
        summary: dict[str, Any] = {}
        chosen_penalties: dict[str, dict] = {}
        arrays: dict[str, np.ndarray] = {}
        alarms = []
        shown = np.linspace(0, len(test_labels) - 1, min(self.map_examples, len(test_labels))).round().astype(np.int64)
        for row in (*self.baselines, self.name):
            features = regression.rotate(*regression.standardise(train[row], test[row]))
            numbers, chosen, unfinished = self._probe(*features, train_labels, test_labels, held_out, draws)
            found = neighbours.knn(
                train[row], train_labels, test[row], classes=len(self.train.class_names), k=self.neighbours
            )
            numbers["knn"] = float(np.mean(found == test_labels))
            for key, value in numbers.items():
                summary.setdefault(key, {})[row] = value
            chosen_penalties[row] = chosen
            if unfinished:
                alarms.append(
                    f"The logistic regression on {row} with C={', '.join(f'{penalty:g}' for penalty in unfinished)} "
                    "stopped before it converged, so its accuracies are approximate: leave that C out of penalties"
                )
            principal = pca.pca(test[row], 2)
            arrays[f"map/{row}"] = principal.projected[shown]
            arrays[f"map_explained/{row}"] = principal.explained_variance_ratio
        arrays["map_labels"] = test_labels[shown]
        arrays["map_classes"] = np.asarray(self.test.class_names, dtype=np.str_)
        scalars = {f"{key}/{row}": value for key, by_row in summary.items() for row, value in by_row.items()}
        summary |= {"chosen_penalty": chosen_penalties, "knn_neighbours": self.neighbours}
        return types.Report(scalars=scalars, arrays=arrays, summary=summary, alarms=tuple(alarms))

    def _probe(self, train, test, train_labels, test_labels, held_out, draws) -> tuple[dict, dict, list[float]]:
        """One representation's accuracies by name, its chosen C by name, and every C that did not converge."""
        penalties = sorted(self.penalties)
        numbers, chosen, unfinished = {}, {}, set()

        def fit(*arguments, penalties, **more):
            fitted = regression.fit(*arguments, classes=len(self.train.class_names), penalties=penalties, **more)
            converged = np.asarray(fitted.converged).reshape(-1, len(penalties)).all(axis=0)
            unfinished.update(penalty for penalty, done in zip(penalties, converged, strict=True) if not done)
            return fitted

        most = max((rows.shape[1] for rows in draws.values()), default=0)
        for count, rows in draws.items():
            # Filled up to one length with rows of weight 0, so that one compiled program serves all counts.
            padded = np.pad(rows, ((0, 0), (0, most - rows.shape[1])))
            weights = np.broadcast_to(np.arange(most) < rows.shape[1], padded.shape)
            fitted = fit(
                train[padded], train_labels[padded], weights=weights, penalties=penalties, tolerance=_TOLERANCE
            )
            held_out_accuracies = regression.accuracy(fitted, train[held_out], train_labels[held_out])
            best = int(np.argmax(held_out_accuracies.mean(axis=0)))
            at_best = regression.Regression(fitted.coefficients[:, best], fitted.intercepts[:, best])
            accuracies = regression.accuracy(at_best, test, test_labels)
            numbers[f"labels_{count}"] = float(accuracies.mean())
            numbers[f"labels_{count}_std"] = float(accuracies.std(ddof=1)) if self.draws > 1 else 0.0
            chosen[f"labels_{count}"] = penalties[best]
        one, penalty = _choose(fit, train, train_labels, held_out, penalties)
        whole = fit(train, train_labels, penalties=(penalty,), start=one, tolerance=_TOLERANCE)
        numbers["labels_all"] = float(regression.accuracy(whole, test, test_labels)[0])
        chosen["labels_all"] = penalty
        return numbers, chosen, sorted(unfinished)

    def _check_draws(self, labels: np.ndarray) -> None:
        """Raises for what no draw could give, by counting alone, so that a large set costs nothing."""
        here = "evaluators.linear.LinearProbe"
        members = np.bincount(labels, minlength=len(self.train.class_names))
        held_out = np.rint(self.validation_share * members).astype(int)
        if not held_out.any():
            raise types.UsageError(
                f"{here}: validation_share={self.validation_share} holds out no image of {len(labels)} in "
                f"{len(members)} classes; enlarge it"
            )
        fewest = int(np.argmin(members - held_out))
        left = members[fewest] - held_out[fewest]
        for count in self.labels_per_class:
            if left < count:
                raise types.UsageError(
                    f"{here}: labels_per_class holds {count}, but class {self.train.class_names[fewest]!r} has "
                    f"{left} training images beside the held-out ones; leave {count} out"
                )

    def _held_out(self, labels: np.ndarray) -> np.ndarray:
        """Bool [n]: the training images that choose penalties, the same share of every class."""
        classes = len(self.train.class_names)
        return subsets.held_out(labels, classes, self.validation_share, seed=self.seed, name="probe_held_out")

    def _draws(self, labels: np.ndarray, held_out: np.ndarray) -> dict[int, np.ndarray]:
        """By count, indices [draws, classes * count] of training images that are not held out, by class in turn."""
        picked: dict[int, list] = {count: [] for count in self.labels_per_class}
        for draw in range(self.draws):
            members = subsets.shuffled_members(
                labels, len(self.train.class_names), seed=self.seed, name="probe_draws", draw=draw, among=~held_out
            )
            for count, draws in picked.items():
                draws.append(np.concatenate([ours[:count] for ours in members]))
        return {count: np.stack(draws) for count, draws in picked.items()}


def _choose(fit, train, labels, held_out, penalties) -> tuple[regression.Regression, float]:
    """The fit to the images that are not held out which serves the held-out ones best, and its C."""
    # Held-out rows get weight 0 rather than being cut away, so that the final fit is the same compiled program.
    weights = (~held_out).astype(np.float32)
    fitted, least, chosen = None, np.inf, None
    for penalty in penalties:
        path = fit(train, labels, weights=weights, penalties=(penalty,), start=fitted, tolerance=_SEARCH_TOLERANCE)
        fitted = jax.tree.map(lambda array: array[0], path)
        loss = float(regression.cross_entropy(fitted, train[held_out], labels[held_out]))
        # Past the least, weaker penalties would only cost time, and on many images the most of all.
        if loss >= least:
            break
        least, chosen = loss, (fitted, penalty)
    return chosen
