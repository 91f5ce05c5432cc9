"""What the README and the configs tell people to type exists: scripts, flags, configs, make targets, files."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]
TEXTS = [*PAGES, REPOSITORY / "experiments" / "RESULTS.md", *sorted(REPOSITORY.glob("configs/*.py"))]


def commands():
    for file in TEXTS:
        text = re.sub(r"\\+\n", " ", file.read_text())  # in a docstring's source the backslash is doubled
        for line in re.findall(r"^ *(?:[A-Z_]+=\S+ )*(python -m experiments\.\w+.*|make \w.*)$", text, re.MULTILINE):
            yield pytest.param(shlex.split(line.rstrip(" .`"), comments=True), id=f"{file.name}: {line[:60]}")


@pytest.fixture(scope="module")
def flags_of():
    known = {}

    def ask(module):
        if module not in known:
            command = [sys.executable, "-m", module, "--helpfull"]
            printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout
            known[module] = set(re.findall(r"^ +--(?:\[no\])?(\w+)", printed, re.MULTILINE))
        return known[module]

    return ask


@pytest.mark.parametrize("words", list(commands()))
def test_command_can_be_typed(words, flags_of):
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
        return
    module = words[2]
    assert (REPOSITORY / (module.replace(".", "/") + ".py")).is_file()
    # Runs are its only words that are no flags.
    given = [word for word in words[3:] if word.startswith("--") or module != "experiments.compare"]
    for word in given:
        name, _, value = word.removeprefix("--").partition("=")
        if name.startswith("config."):
            continue  # tests/test_configs.py builds every config; tests/test_build.py refuses a wrong key
        assert name in flags_of(module), f"{module} has no flag --{name}"
        if name == "config" and value not in ("CONFIG", "packed/config.json"):  # what the line before it wrote
            assert (REPOSITORY / value.partition(":")[0]).is_file()


def test_linked_files_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), target
