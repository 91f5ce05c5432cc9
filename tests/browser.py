"""A headless Chromium that is cut off from any network: what a page looks like, and what it does when asked."""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install one to run tests of pages")


def chromium(folder: pathlib.Path, page: pathlib.Path, *options: str, dark: bool = False, timeout_s: float = 90) -> str:
    """What Chromium, with a fresh profile below `folder`, prints for `page`."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page.absolute().as_uri(),
    ]
    # Containers have little of the memory that Chromium shares by default, and no home to write to.
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(
        [*command[:1], "--disable-dev-shm-usage", *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(folder, page, file, *, width_px=1280, height_px=900, dark=False, wait_ms=1500):
    """Writes what `page` looks like to `file`, PNG; widths below about 500 need `phone`."""
    options = (f"--screenshot={file}", f"--window-size={width_px},{height_px}", f"--virtual-time-budget={wait_ms}")
    chromium(folder, page, *options, dark=dark)
    assert file.exists()


def phone(page, file, *, width_px=360, height_px=740):
    """Writes a page to `file` that shows `page` in a frame of that width: windows are wider than a phone is."""
    frame = f'<iframe id="phone" src="{page.absolute().as_uri()}" width="{width_px}" height="{height_px}"></iframe>'
    file.write_text(f"<!doctype html><style>body{{margin:0}}iframe{{border:0}}</style>{frame}", encoding="utf-8")
    return file


def ask(folder, page, script, *, width_px=1280, height_px=900, frame_px=None, wait_ms=4000, dark=False):
    """What the body of an async function, `script`, returns on a copy of `page`, beside what went wrong and was loaded.

    The answer holds `value` (through JSON), `errors` (texts), `loaded` (addresses outside the page that it asked for),
    `scroll_width` and `inner_width`. `frame_px` is the width of a frame for pages narrower than a window can be.
    """
    before = "<script>window.faults=[];addEventListener('error',e=>faults.push(String(e.message)));"
    before += "addEventListener('unhandledrejection',e=>faults.push(String(e.reason)));"
    before += "addEventListener('securitypolicyviolation',e=>faults.push('blocked '+e.blockedURI));</script>"
    after = f"""<script>
    (async () => {{
      const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
      let value = null;
      try {{ value = await (async () => {{ {script} }})(); }} catch (error) {{ faults.push(String(error.stack)); }}
      const loaded = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
      const answer = {{ value, errors: faults, loaded, scroll_width: document.documentElement.scrollWidth,
        inner_width: innerWidth }};
      const told = document.createElement("pre");
      told.id = "answer";
      told.textContent = JSON.stringify(answer);
      document.body.append(told);
      if (parent !== window) parent.postMessage(told.textContent, "*");
    }})();</script>"""
    copy = folder / f"asked-{page.name}"
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1 and "<head>" in text
    copy.write_text(text.replace("<head>", f"<head>{before}").replace("</body>", f"{after}</body>"), encoding="utf-8")
    shown = copy
    if frame_px:
        shown = phone(copy, folder / f"framed-{page.name}", width_px=frame_px, height_px=height_px)
        listen = """<script>addEventListener("message", (event) => { const told = document.createElement("pre");
          told.id = "answer"; told.textContent = event.data; document.documentElement.append(told); });</script>"""
        shown.write_text(listen + shown.read_text(encoding="utf-8"), encoding="utf-8")
    options = ("--dump-dom", f"--window-size={width_px},{height_px}", f"--virtual-time-budget={wait_ms}")
    tree = chromium(folder, shown, *options, dark=dark)
    found = re.search(r'<pre id="answer">(.*?)</pre>', tree, re.DOTALL)
    assert found, f"the page did not answer within {wait_ms} ms: {tree[-500:]}"
    return json.loads(html.unescape(found[1]))
