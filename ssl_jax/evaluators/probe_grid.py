"""The fast linear probe: a whole grid of learning rates and weight decays on frozen features in one compiled call."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssl_jax import metrics, subsets, types
from ssl_jax.analysis import grid, regression, scores

_HERE = "evaluators.probe_grid.ProbeGrid"


@dataclasses.dataclass(frozen=True)
class ProbeGrid:
    """Softmax regression by SGD on frozen features, with few labels and all, the setting chosen on held-out images.

    Every pair of a learning rate and a weight decay is a setting; `analysis.grid.fit` trains all of them side by side.
    The protocol:
    - features are standardised by mean and deviation over all training images, which takes no labels;
    - a share of every class of the training set is held out. With few labels, each draw takes that many images of every
      class from the rest, the smaller draws inside the larger; the setting of each count is the one of best mean
      accuracy on the held-out images over all draws. So the setting, one of a short list, has seen more labels than the
      draw has; the weights have not;
    - with all labels, it is the one of best accuracy on the held-out images after training on the rest; then all
      training images are trained on with it;
    - among settings of equal accuracy, the one of least cross-entropy on the held-out images is taken, then the
      stronger decay. A setting that diverged is never chosen;
    - the test set is asked once for each draw, with the chosen setting, and decides nothing.

    Summary: `labels_<count>` and `labels_all`, each `{name: accuracy}` in [0, 1] (for draws the mean),
    `labels_<count>_std` the standard deviation over the draws (dividing by their number less one; 0 for a single draw),
    `chosen_setting` by name and count, `test`, what `analysis.scores.entry` says of the fit with all labels, and `grid`
    with the number of `settings`, `feature_seconds` (reading and encoding both sets) and `fit_seconds` (all that
    follows, compiling included). Arrays: `confusion` and `confusion_classes`. The first are the keys of
    `linear.LinearProbe`: of two evaluators that share a run and a count, the later one's table stands. Scalars are the
    accuracies and deviations as `labels_<count>/<name>`. An alarm says where some settings diverged, and where the
    chosen one ends its range and beats its neighbour by more than one standard error of the held-out accuracy.

    Attributes:
        train: the labelled training images.
        test: the labelled test images.
        preprocess: uint8 images to what the export takes.
        export: the method's export that gives the features.
        name: what the representation is called in the results.
        learning_rates: in the unit of `analysis.grid.fit`, which suits features of any width.
        weight_decays: the L2 coefficients, of `mean loss + weight_decay |W|^2 / 2`; scikit-learn's C is
            1 / (weight_decay * images).
        labels_per_class: the counts of labels; may be empty.
        draws: independent draws for each count.
        steps: updates of every fit: 500 batches of 2,048 are 20 passes over 50,000 images.
        batch_size: images in a batch; with few labels at most the images of the largest draw.
        momentum: share of the velocity kept, in [0, 1).
        validation_share: the share of every class of the training set that is held out.
        seed: of the held-out images, the draws and the order of images.

    Raises:
        UsageError: a set without class names, sets whose class names differ, an unlabelled image, a number, share or
            list out of range, a class with too few images for a draw; when called, an unknown export.
        RunError: when called, no setting gives finite numbers.
    """

    train: types.Examples
    test: types.Examples
    preprocess: Callable
    export: str = "features"
    name: str = "grid"
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3, 0.5)
    weight_decays: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1, 1.0, 10.0)
    labels_per_class: tuple[int, ...] = (1, 5, 10)
    draws: int = 3
    steps: int = 500
    batch_size: int = 2048
    momentum: float = 0.9
    validation_share: float = 0.2
    seed: int = 0

    def __post_init__(self):
        for side in ("train", "test"):
            if not getattr(self, side).class_names:
                raise types.UsageError(
                    f"{_HERE}: its {side} set has no labels; give a labelled split, or leave this evaluator out"
                )
        if self.train.class_names != self.test.class_names:
            raise types.UsageError(
                f"{_HERE}: the class names of train ({len(self.train.class_names)}) and test "
                f"({len(self.test.class_names)}) differ; give two splits of one data set"
            )
        if self.draws < 1 or any(count < 1 for count in self.labels_per_class):
            raise types.UsageError(
                f"{_HERE}: draws={self.draws}, labels_per_class={self.labels_per_class}; each is at least 1"
            )
        if not self.learning_rates or not min(self.learning_rates) > 0:
            raise types.UsageError(
                f"{_HERE}: learning_rates={self.learning_rates}; give rates above 0, say (0.1, 0.3, 1.0)"
            )
        if not self.weight_decays or not min(self.weight_decays) >= 0:
            raise types.UsageError(
                f"{_HERE}: weight_decays={self.weight_decays}; give coefficients of at least 0, say (0.0001, 0.01)"
            )
        if self.steps < 1 or self.batch_size < 1:
            raise types.UsageError(f"{_HERE}: steps={self.steps}, batch_size={self.batch_size}; each is at least 1")
        if not 0 <= self.momentum < 1:
            raise types.UsageError(f"{_HERE}: momentum={self.momentum}; give one of at least 0 and below 1")
        if not 0 < self.validation_share < 1:
            raise types.UsageError(f"{_HERE}: validation_share={self.validation_share}; give one between 0 and 1")
        for side in ("train", "test"):
            missing = np.count_nonzero(getattr(self, side).labels() < 0)
            if missing:
                raise types.UsageError(
                    f"{_HERE}: {missing} images of its {side} set have no label; give a labelled split"
                )
        self._check_draws(self.train.labels())

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """The probe's numbers, as the class says."""
        del untrained
        if self.export not in exports:
            raise types.UsageError(
                f"{_HERE}: no export {self.export!r} in this method, which has {', '.join(sorted(exports))}"
            )

        def encode(images):
            features = exports[self.export](state, images, self.preprocess)
            return np.asarray(features, np.float32).reshape(len(features), -1)

        began = time.perf_counter()
        train, train_labels = metrics.collect(encode, self.train.batches())
        test, test_labels = metrics.collect(encode, self.test.batches())
        encoded = time.perf_counter()
        train, test = regression.standardise(train, test)
        held_out = self._held_out(train_labels)
        numbers, chosen, alarms = {}, {}, []
        for label, (picked, fitted) in self._probe(train, train_labels, held_out, alarms):
            # The chosen setting alone: no other one meets the test set.
            accuracies = grid.score(fitted, test, test_labels).accuracy[:, 0, 0]
            chosen[label] = dict(zip(("learning_rate", "weight_decay"), picked, strict=True))
            numbers[label] = float(accuracies.mean())
            if label != "labels_all":
                numbers[f"{label}_std"] = float(accuracies.std(ddof=1)) if self.draws > 1 else 0.0
        summary: dict[str, Any] = {key: {self.name: value} for key, value in numbers.items()}
        summary["chosen_setting"] = {self.name: chosen}
        logits = test @ np.asarray(fitted.coefficients[0, 0, 0]) + np.asarray(fitted.intercepts[0, 0, 0])[None]
        summary["test"] = scores.entry(logits, test_labels, self.test.class_names, seed=self.seed)
        summary["grid"] = {
            "settings": len(self.learning_rates) * len(self.weight_decays),
            "feature_seconds": encoded - began,
            "fit_seconds": time.perf_counter() - encoded,
        }
        scalars = {f"{key}/{self.name}": value for key, value in numbers.items()}
        arrays = {
            "confusion": np.asarray(summary["test"]["confusion"], np.int64),
            "confusion_classes": np.asarray(list(summary["test"]["classes"]), dtype=np.str_),
        }
        return types.Report(scalars=scalars, arrays=arrays, summary=summary, alarms=tuple(alarms))

    def _probe(self, train, labels, held_out, alarms):
        """Per label count its name, the chosen (rate, decay) and its fits; all labels come last; `alarms` may grow."""
        diverged = set()

        def choose(found, label):
            bad = np.argwhere(~np.isfinite(found.cross_entropy).all(axis=0))
            diverged.update((int(rate), int(decay)) for rate, decay in bad)
            places = grid.choose(found, self.weight_decays)
            if places is None:
                raise types.RunError(
                    f"{_HERE}: no setting gave finite numbers for {label}: lower learning_rates, or check the features "
                    f"of export {self.export!r} for such values"
                )
            alarms.extend(self._edges(found.accuracy.mean(axis=0), places, label, np.count_nonzero(held_out)))
            return places, (self.learning_rates[places[0]], self.weight_decays[places[1]])

        draws = self._draws(labels, held_out)
        if draws:
            rows = [picked for each in draws.values() for picked in each]
            fitted = self._fit(train, labels, rows)
            found = grid.score(fitted, train[held_out], labels[held_out])
            for turn, count in enumerate(draws):
                ours = slice(turn * self.draws, (turn + 1) * self.draws)
                (rate, decay), setting = choose(grid.Scores(*(array[ours] for array in found)), f"labels_{count}")
                alone = (ours, slice(rate, rate + 1), slice(decay, decay + 1))
                yield f"labels_{count}", (setting, grid.Grid(*(array[alone] for array in fitted)))
        fitted = self._fit(train, labels, [np.flatnonzero(~held_out)])
        _, setting = choose(grid.score(fitted, train[held_out], labels[held_out]), "labels_all")
        whole = self._fit(train, labels, [np.arange(len(labels))], (setting[:1], setting[1:]))
        yield "labels_all", (setting, whole)
        if diverged:
            rates = sorted({self.learning_rates[rate] for rate, _ in diverged})
            alarms.append(
                f"{len(diverged)} of the {len(self.learning_rates) * len(self.weight_decays)} settings of the grid "
                f"probe diverged, at learning rates {', '.join(f'{rate:g}' for rate in rates)}: leave those out"
            )

    def _fit(self, train, labels, rows, settings=None) -> grid.Grid:
        rates, decays = settings or (self.learning_rates, self.weight_decays)
        return grid.fit(
            train,
            labels,
            rows,
            classes=len(self.train.class_names),
            learning_rates=rates,
            weight_decays=decays,
            steps=self.steps,
            batch_size=min(self.batch_size, max(len(subset) for subset in rows)),
            momentum=self.momentum,
            seed=self.seed,
        )

    def _edges(self, accuracy, places, label, images) -> list[str]:
        """A sentence for each range [l, w] that the chosen setting ends, where going on looks worth the while."""
        sentences = []
        best = accuracy[places]
        noise = (best * (1 - best) / images) ** 0.5
        for axis, name in enumerate(("learning_rates", "weight_decays")):
            values = getattr(self, name)
            order = np.argsort(values)
            rank = int(np.flatnonzero(order == places[axis])[0])
            if len(values) == 1 or rank not in (0, len(values) - 1):
                continue
            inner = list(places)
            inner[axis] = order[1 if rank == 0 else -2]
            if best - accuracy[tuple(inner)] > noise:
                sentences.append(
                    f"The grid probe's {label} is best with {values[places[axis]]:g}, the "
                    f"{'smallest' if rank == 0 else 'largest'} of {name}, and clearly worse with the next: add "
                    f"{'smaller' if rank == 0 else 'larger'} ones"
                )
        return sentences

    def _check_draws(self, labels: np.ndarray) -> None:
        """Raises for what no draw could give, by counting alone, so that a large set costs nothing."""
        members = np.bincount(labels, minlength=len(self.train.class_names))
        held_out = np.rint(self.validation_share * members).astype(int)
        if not held_out.any() or not (members - held_out).any():
            raise types.UsageError(
                f"{_HERE}: validation_share={self.validation_share} holds out {held_out.sum()} of {len(labels)} images "
                f"in {len(members)} classes; choose one that leaves some on both sides"
            )
        fewest = int(np.argmin(members - held_out))
        left = members[fewest] - held_out[fewest]
        for count in self.labels_per_class:
            if left < count:
                raise types.UsageError(
                    f"{_HERE}: labels_per_class holds {count}, but class {self.train.class_names[fewest]!r} has "
                    f"{left} training images beside the held-out ones; leave {count} out"
                )

    def _held_out(self, labels: np.ndarray) -> np.ndarray:
        """Bool [n]: the training images that choose settings, the same share of every class."""
        classes = len(self.train.class_names)
        return subsets.held_out(labels, classes, self.validation_share, seed=self.seed, name="probe_held_out")

    def _draws(self, labels: np.ndarray, held_out: np.ndarray) -> dict[int, list[np.ndarray]]:
        """By count, for every draw the indices [classes * count] of training images that are not held out."""
        picked: dict[int, list] = {count: [] for count in self.labels_per_class}
        for draw in range(self.draws):
            members = subsets.shuffled_members(
                labels, len(self.train.class_names), seed=self.seed, name="probe_draws", draw=draw, among=~held_out
            )
            for count, draws in picked.items():
                draws.append(np.concatenate([ours[:count] for ours in members]))
        return picked
