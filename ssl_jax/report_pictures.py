"""The section of a run's page with its pictures: the last ones, and how they came about."""

import base64
import html
import math
import pathlib
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_jax import types

STYLE = """\
img { display: block; max-width: 100%; height: auto; border-radius: 4px; margin-bottom: .5rem; }
img.small { image-rendering: pixelated; }
.pictures .panels { grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); }
.pictures figure { margin-bottom: 1rem; }
.strip { display: flex; gap: 1.2rem; overflow-x: auto; background: var(--panel); border-radius: 10px; padding: 1rem;
  margin: .8rem 0 1.6rem; }
.strip figure { flex: 0 0 min(15rem, 78vw); margin: 0; } .strip img { width: 100%; }
"""
"""What a page's style sheet must say for them."""

_TRANSLATED = (
    "Each row: an image, its translation, the way back, and, where there is a fourth, what the generator of its own "
    "domain makes of it."
)
_NOTES = (
    (r"^batch_", "What the network sees: training images after augmentation; a place is the same image in every view."),
    (
        r"confusion",
        "Rows are the true classes, columns the predicted ones; the darker, the larger its share of the row.",
    ),
    (r"neighbour", "Each row begins with a test image; beside it the training images whose features are most alike."),
    (r"sample", "Pictures that the network made from noise."),
    (r"counterpart.*_(a_to_b|b_to_a)$", "Each row: an image, its translation, and the truth."),
    (r"(^|_)(a_to_b|b_to_a)$", _TRANSLATED),
    (r"translat", "Pictures and what the network made of them."),
)
_SIDE_BY_SIDE = r"(^|_)(a_to_b|b_to_a)$"
_MOST = 8
_PNG_BEGINS, _PNG_ENDS = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"IEND\xaeB`\x82"


def read(folder: pathlib.Path) -> dict[str, list[tuple[int, bytes]]]:
    """(step, PNG file) by name, in the order of steps, of the pictures of a run folder.

    Raises RunError for a file that is not a whole PNG.
    """
    found: dict[str, list[tuple[int, bytes]]] = {}
    for path in sorted((folder / "images").glob("*.png")):
        named = re.fullmatch(r"(.+)-(\d{8,})", path.stem)
        if named:
            content = path.read_bytes()
            # Beside its size, a PNG says where it begins and ends.
            if not (content.startswith(_PNG_BEGINS) and content.endswith(_PNG_ENDS)):
                raise types.RunError(f"{path} is damaged (not a whole PNG): move it away and write the report again")
            found.setdefault(named[1], []).append((int(named[2]), content))
    return found


def section(pictures: Mapping[str, Sequence[tuple[int, bytes]]], *, steps_per_epoch: int | None) -> str:
    """The last picture of each name, and earlier ones to unfold; "" for no pictures.

    Of translations (`a_to_b`, `b_to_a`) up to 8 stand side by side, evenly spread, the first and the last among them;
    captions say the epoch, or the step where `steps_per_epoch` is not known.
    """
    if not pictures:
        return ""
    latest, strips, before = "", "", ""
    for name, found in pictures.items():
        note = next((note for pattern, note in _NOTES if re.search(pattern, name)), "")
        if len(found) > 1 and re.search(_SIDE_BY_SIDE, name):
            strips += _strip(name, found, note, steps_per_epoch)
            continue
        step, content = found[-1]
        latest += _figure(name, step, content, f"<code>{_text(name)}</code>, step {step:,}. {note}")
        earlier = found[:-1][:: -math.ceil(len(found) / _MOST)]
        if earlier:
            figures = (_figure(name, *each, f"<code>{_text(name)}</code>, step {each[0]:,}. ") for each in earlier)
            title = f"Earlier pictures of {name} ({len(earlier)} of {len(found) - 1})"
            before += f"<details><summary>{_text(title)}</summary>{''.join(figures)}</details>"
    panels = f'<div class="panels">{latest}</div>' if latest else ""
    return f'<section class="pictures"><h2>Pictures</h2>{strips}{panels}{before}</section>'


def _strip(name: str, found: Sequence[tuple[int, bytes]], note: str, steps_per_epoch: int | None) -> str:
    count = min(_MOST, len(found))
    shown = [found[round(place * (len(found) - 1) / (count - 1))] for place in range(count)]
    figures = ""
    for step, content in shown:
        when = f"step {step:,}" if steps_per_epoch is None else f"epoch {step / steps_per_epoch:.4g}"
        figures += _figure(name, step, content, f"<strong>{when}</strong>")
    told = "all of them" if count == len(found) else f"{count} of {len(found)}"
    label = f"{name} over the run"
    return (
        f"<h3><code>{_text(name)}</code> side by side</h3>"
        f'<p class="soft">{note} From left to right as training went on, the same images each time ({told}).</p>'
        # Whoever has no mouse must reach what lies outside, too.
        f'<div class="strip" tabindex="0" role="group" aria-label="{_text(label)}">{figures}</div>'
    )


def _figure(name: str, step: int, content: bytes, caption: str) -> str:
    width, height = struct.unpack(">II", content[16:24])
    factor = max(1, 384 // width)
    small = ' class="small"' if width < 700 else ""
    return (
        f'<figure><img{small} width="{width * factor}" height="{height * factor}" alt="{_text(name)} at step {step}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}"><figcaption>{caption}</figcaption></figure>'
    )


def _text(value: Any) -> str:
    return html.escape(str(value))
