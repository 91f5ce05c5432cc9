"""`experiments.command`: exit codes and one-line errors, in processes of their own."""

import pathlib
import subprocess
import sys

import pytest

from experiments import command
from ssl_jax.types import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = """
import errno, logging, os, sys
from absl import flags
from experiments import command
from ssl_jax import types
flags.DEFINE_integer("count", 1, "a number")
def main(arguments):
    logging.getLogger("absl").info("for the libraries' authors")
    {body}
if __name__ == "__main__":
    command.run(main{given})
"""


def run(body, *arguments, given=""):
    script = SCRIPT.format(body=body, given=given)
    return subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_success_is_silent_and_zero():
    done = run("print(flags.FLAGS.count, arguments[1:])", "--count=3", "more")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 ['more']\n", "")


def test_help_is_a_success():
    done = run("raise AssertionError", "--help")
    assert done.returncode == 0 and "--count" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("body", "arguments", "code", "line"),
    [
        ("raise types.UsageError('no such\\nthing')", [], 2, "error: no such thing"),
        ("raise types.RunError('went wrong')", [], 1, "error: went wrong"),
        ("raise KeyboardInterrupt", [], 1, "error: interrupted"),
        ("pass", ["--coun=3"], 2, "error: Unknown command line flag 'coun'. Did you mean: count ?"),
        ("pass", ["--count=x"], 2, "error: flag --count=x: invalid literal for int() with base 10: 'x'"),
        (
            "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/here/file')",
            [],
            1,
            "error: the disk is full (/here/file): free space there or name another folder",
        ),
        (
            "raise ValueError('write to /here/file failed: No space left on device')",
            [],
            1,
            "error: the disk is full (write to /here/file failed: No space left on device): "
            "free space there or name another folder",
        ),
    ],
)
def test_failures_are_one_line(body, arguments, code, line):
    done = run(body, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line + "\n")


def test_a_defect_keeps_its_traceback():
    done = run("raise ZeroDivisionError('ours')")
    assert done.returncode == 1 and "Traceback" in done.stderr and "ZeroDivisionError: ours" in done.stderr


def test_a_parser_of_ones_own():
    given = ", parse=lambda argv: {'left': flags.FLAGS(argv)[1:]}"
    assert run("print(arguments)", "a", given=given).stdout == "{'left': ['a']}\n"
    failing = ", parse=lambda argv: getattr(argv, 'lrr')"
    done = run("pass", given=failing)
    assert done.returncode == 2 and done.stderr == "error: 'list' object has no attribute 'lrr'\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("data.feed.training", "data.resident.noise"), ("data.unpaired.training", "data.unpaired.noise")],
)
def test_noise_has_as_many_sets_as_what_it_stands_for(kind, expected):
    section = command.noise_section("synthetic", "12x8x8x3", {"type": kind, "batch_size": 4, "name": "photos"})
    assert section == {"type": expected, "shape": (12, 8, 8, 3), "batch_size": 4}
    with pytest.raises(UsageError, match="--synthetic='12x8' is not a shape"):
        command.noise_section("synthetic", "12x8", section)
