"""`ssl_jax.heap_pieces`: what a compilation leaves in pieces is taken out of malloc's reach, and given back."""

import os
import platform

import pytest

BEGIN = """
import ctypes
from ssl_jax import heap_pieces, process
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = heap_pieces._Statistics
"""

PIECES = """
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
made = []
watch = heap_pieces.Pieces.watch
heap_pieces.Pieces.watch = lambda pieces: (made.append(pieces), watch(pieces))
process.keep_heap()
def free_below_the_end():
    told = libc.mallinfo2()
    return told.fordblks - told.keepcost
blocks = [libc.malloc(size) for size in (1500, 40, 90_000, 40) * 2000]
for block in blocks[::2]:
    libc.free(block)
before = free_below_the_end()
made[0].set_aside()
during = free_below_the_end()
print(before > 180e6, during < before / 20, len(made[0]) > 4000)
made[0].give_back()
print(free_below_the_end() > before * 0.99, len(made[0]))
"""

COMPILATIONS = """
heap_pieces.LEAST_COMPILING_SECONDS = heap_pieces.LEAST_LOWERING_SECONDS = 0.0
calls = []
heap_pieces.Pieces.set_aside = lambda pieces: calls.append("aside")
heap_pieces.Pieces.give_back = lambda pieces: calls.append("back")
process.keep_heap()
import jax
calls.clear()
jax.jit(lambda x: x + 1).lower(1.0).compile()
print(*calls)
heap_pieces.LEAST_COMPILING_SECONDS = heap_pieces.LEAST_LOWERING_SECONDS = 100.0
calls.clear()
jax.jit(lambda x: x + 2).lower(1.0).compile()
print(*calls)
"""


@pytest.fixture
def kept(child, monkeypatch):
    """Runs a source in a process whose heap may be kept."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("SSL_JAX_KEEP_HEAP", raising=False)
    for name in [name for name in os.environ if name == "GLIBC_TUNABLES" or name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    return lambda source: child(BEGIN + source).stdout.splitlines()


pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="glibc before 2.33 does not say how much of the heap is unused",
)


def test_pieces_are_out_of_reach_until_they_are_given_back(kept):
    assert kept(PIECES) == ["True True True", "True 0"]


def test_long_compilations_give_them_back_before_and_set_them_aside_after(kept):
    assert kept(COMPILATIONS) == ["back aside", ""]
