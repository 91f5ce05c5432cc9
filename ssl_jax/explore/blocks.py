"""The blocks that the sections of the page are built of."""

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from ssl_jax import figures, sheet

STYLE = """
.sheets { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1.2rem; }
.sheets figure, .sheet { background: var(--panel); border-radius: 10px; padding: 1rem; }
.sheet { margin: 1rem 0; } .sheets h3 { overflow-wrap: anywhere; }
img.sheet-image { display: block; max-width: 100%; height: auto; image-rendering: pixelated; }
.maps { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1.2rem; }
.maps figure { margin: 0; max-width: none; }
.verdict { border: 2px solid var(--rule); border-radius: 8px; padding: .9rem 1.2rem; margin: 1rem 0; }
.verdict.bad { border-color: var(--alarm); background: var(--alarm-page); color: var(--alarm); }
.verdict p { margin: .2rem 0; }
@media (max-width: 40rem) { .panel { overflow-x: auto; } .panel svg { min-width: 30rem; } }
"""
"""What these blocks need beside the page's own style."""


def text(value: Any) -> str:
    """Anything as text that HTML takes for text."""
    return html.escape(str(value))


def panel(figure: figures.Figure, note: str = "") -> str:
    """One figure with words below it; the words are HTML."""
    return f'<figure class="panel">{figure.svg}<figcaption>{note}</figcaption></figure>'


def png(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 [h, w, 3]."""
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def grid(images: np.ndarray, columns: int, scale_px: int = 64) -> np.ndarray:
    """`sheet.grid` of uint8 [n, h, w, c] with any number of channels."""
    return sheet.grid(sheet.coloured(images), columns=columns, scale_px=scale_px)


def picture(content: bytes, alt: str, heading: str = "", note: str = "") -> str:
    """One picture, a PNG file, as a figure; the heading is text, the note HTML."""
    width, height = (int.from_bytes(content[place : place + 4]) for place in (16, 20))
    head = f"<h3>{text(heading)}</h3>" if heading else ""
    below = f"<figcaption>{note}</figcaption>" if note else ""
    return (
        f'<figure class="sheet">{head}<img class="sheet-image" width="{width}" height="{height}" alt="{text(alt)}" '
        f'src="data:image/png;base64,{base64.b64encode(content).decode()}">{below}</figure>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> str:
    """A table that scrolls by itself where it is wide, HTML below it; a row's first cell names it."""
    top = "".join(f"<th>{text(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{text(name)}</th>{''.join(f'<td>{text(number(cell))}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    # Outside, so that words do not scroll with the numbers.
    below = f'<p class="soft">{caption}</p>' if caption else ""
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>{below}'


def number(value: Any) -> str:
    """A number in few digits, `-` for None and what is no number, anything else as it is."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return "infinite" if math.isinf(value) else f"{value:.3f}" if 1e-3 <= abs(value) < 1e4 else f"{value:.3g}"
