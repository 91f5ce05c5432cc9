"""The whole exploration: its parts one after the other, each standing when another fails, and the page of them."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ssl_jax import page
from ssl_jax.explore import blocks, clusters, components, copies, health, maps, naming, odd_ones, scatter
from ssl_jax.explore.subject import Part, Subject
from ssl_jax.types import UsageError

HEADINGS = {
    "health": "Is it any good?",
    "maps": "Maps",
    "components": "Principal components",
    "clusters": "Clusters",
    "odd_ones": "The odd ones",
    "neighbours": "Neighbours and copies",
}
"""The parts in the order of the page."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a user may choose.

    Attributes:
        clusters: how many; 0 lets the silhouette choose from 2 to `most_clusters`.
        most_clusters: see there.
        names: a `cluster_names.csv` with names filled in, or None.
        normal: classes that are normal, all others being odd; () where none is odd.
        mapped: images on a map.
        seed: of all that is drawn.
        parts: which parts to make, by their names in `HEADINGS`.
    """

    clusters: int = 0
    most_clusters: int = 15
    names: pathlib.Path | None = None
    normal: Sequence[str] = ()
    mapped: int = 2000
    seed: int = 0
    parts: Sequence[str] = tuple(HEADINGS)


@dataclasses.dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        parts: by name, in the order of the page.
        left_out: the parts that these features do not allow, with the reason in words.
        failed: the parts that broke, with the error in words.
    """

    parts: Mapping[str, Part]
    left_out: Mapping[str, str]
    failed: Mapping[str, str]


def explore(
    subject: Subject, training: Subject | None, settings: Settings, begin: Callable[[str], None] = lambda name: None
) -> Found:
    """Makes every part.

    Args:
        subject: what is explored.
        training: the training images by the same networks, or None.
        settings: see there.
        begin: told each part's name before it is made.

    Raises:
        UsageError: for settings that this subject does not allow.
    """
    refuse_unknown(settings.parts)
    if settings.normal:
        odd_ones.normal_classes(subject, settings.normal)
    count = len(subject.features)
    if settings.clusters and not 2 <= settings.clusters < count:
        raise UsageError(f"{settings.clusters} clusters of {count:,} images: ask for 2 to {count - 1:,}")
    parts: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    failed: dict[str, str] = {}

    def attempt(name, make):
        begin(name)
        try:
            return make()
        except UsageError as error:
            left_out[name] = str(error)
        except Exception as error:  # one part's defect must not cost the user the others
            failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return None

    seed = settings.seed
    grouped = None
    # The maps are coloured by clusters.
    if {"clusters", "maps"} & set(settings.parts):
        grouped = attempt(
            "clusters",
            lambda: clusters.find(subject, count=settings.clusters, most=settings.most_clusters, seed=seed),
        )
    given = None
    if settings.names is not None:
        if grouped is None:
            raise UsageError(f"--names={settings.names}: there are no clusters to name ({left_out | failed})")
        given = naming.read(settings.names, subject, clusters.central_rows(subject, grouped))
    makers = {
        "health": lambda: health.part(subject),
        "maps": lambda: maps.part(subject, _colourings(subject, grouped, given), most=settings.mapped, seed=seed),
        "components": lambda: components.part(subject),
        "clusters": lambda: clusters.part(subject, grouped, given),
        "odd_ones": lambda: odd_ones.part(subject, normal=settings.normal, training=training, seed=seed),
        "neighbours": lambda: copies.part(subject, training),
    }
    for name, make in makers.items():
        if name in settings.parts and name not in left_out | failed:
            part = attempt(name, make)
            if part is not None:
                parts[name] = part
    return Found(parts, left_out, failed)


def refuse_unknown(parts: Sequence[str]) -> None:
    """Raises UsageError for no part, or one that there is not."""
    unknown = [name for name in parts if name not in HEADINGS]
    if unknown or not parts:
        raise UsageError(f"no part {(unknown or [''])[0]!r}: there are {', '.join(HEADINGS)}")


def as_page(subject: Subject, training: Subject | None, found: Found) -> str:
    """The page as one HTML file."""
    sections = []
    made = [name for name in HEADINGS if name in {**found.parts, **found.left_out, **found.failed}]
    for name in made:
        if name in found.parts:
            inside = found.parts[name].html
        elif name in found.left_out:
            inside = f"<p>Left out: {blocks.text(found.left_out[name])}.</p>"
        else:
            inside = f'<div class="verdict bad"><p>This part failed: {blocks.text(found.failed[name])}</p></div>'
        sections.append(f'<section id="{name}"><h2>{HEADINGS[name]}</h2>{inside}</section>')
    height, width, channels = subject.images.shape[1:] if subject.images is not None else (0, 0, 0)
    title, _, which = subject.told.partition(", ") if subject.stages else (subject.told, "", "")
    title = f"What the {title} has learned" if subject.stages else f"A look at {title}"
    facts = [which] if which else []
    facts += [subject.counted, f"{subject.features.shape[1]:,} numbers each"]
    facts += [f"shown at {height}x{width} px"] if channels else []
    facts += [f"{len(subject.class_names):,} classes"] if subject.labelled else ["no labels"]
    facts += [f"beside {training.counted} of the training set"] if training is not None else []
    links = " · ".join(f'<a href="#{name}">{HEADINGS[name]}</a>' for name in made)
    head = (
        f'<header><h1>{blocks.text(title)}</h1><p class="lead">{blocks.text(", ".join(facts))}</p>'
        f'<nav class="soft">{links}</nav></header>'
    )
    styles, scripts = (blocks.STYLE, scatter.STYLE), (scatter.SCRIPT,)
    return page.whole(title, head + "\n".join(sections), styles=styles, scripts=scripts)


def _colourings(
    subject: Subject, grouped: clusters.Clusters | None, given: Sequence[str] | None
) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    found: dict[str, tuple[np.ndarray, Sequence[str]]] = {}
    if subject.labelled:
        found["class"] = subject.labels, subject.class_names
    if grouped is not None:
        names = given or [""] * grouped.count
        told = [name or f"cluster {cluster}" for cluster, name in enumerate(names)]
        found["cluster"] = grouped.by_way["kmeans"], told
    return found or {"image": (np.full(len(subject.features), -1), ())}
