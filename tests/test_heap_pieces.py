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
import resource
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
made = []
watch = heap_pieces.Pieces.watch
heap_pieces.Pieces.watch = lambda pieces: (made.append(pieces), watch(pieces))
process.keep_heap()
def free_below_the_end():
    told = libc.mallinfo2()
    return told.fordblks - told.keepcost
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
blocks = []
for size in (1500, 40, 90_000, 40) * 2000:
    blocks.append(libc.malloc(size))
    libc.memset(blocks[-1], 171, size)
for block in blocks[::2]:
    libc.free(block)
before, resident_before = free_below_the_end(), resident()
made[0].set_aside()
print(before > 180e6, free_below_the_end() < before / 20, len(made[0]) > 4000, resident() < resident_before - 120e6)
print(all(ctypes.string_at(block, 40) == bytes([171]) * 40 for block in blocks[1::2]))
count = len(made[0])
made[0].set_aside()
print(len(made[0]) <= count * 1.01)
made[0].give_back()
print(free_below_the_end() > before * 0.99, len(made[0]))
"""

COMPILATIONS = """
calls = []
heap_pieces.Pieces.set_aside = lambda pieces: calls.append("aside")
heap_pieces.Pieces.give_back = lambda pieces: calls.append("back")
process.keep_heap()
import jax
for lowering, compiling in ((0.0, 0.0), (0.0, 100.0), (100.0, 0.0), (100.0, 100.0)):
    heap_pieces.LEAST_LOWERING_SECONDS, heap_pieces.LEAST_COMPILING_SECONDS = lowering, compiling
    calls.clear()
    jax.jit(lambda x: x + lowering + 2 * compiling).lower(1.0).compile()
    print(*calls)
"""

WATCHED = """
heap_pieces.Pieces.watch = lambda pieces: print("watched")
process.keep_heap()
"""


@pytest.fixture
def kept(child, monkeypatch):
    """Runs a source in a process whose heap may be kept."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name in ("SSL_JAX_KEEP_HEAP", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name == "GLIBC_TUNABLES" or name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    return lambda source: child(BEGIN + source).stdout.splitlines()


pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 33),
    reason="glibc before 2.33 does not say how much of the heap is unused",
)


def test_pieces_are_out_of_reach_until_they_are_given_back(kept):
    assert kept(PIECES) == ["True True True True", "True", "True", "True 0"]


def test_long_compilations_give_them_back_before_and_set_them_aside_after(kept):
    # Where the program is found compiled as well, since they went back for it.
    assert kept(COMPILATIONS) == ["back aside", "back aside", "aside", ""]


def test_not_where_addresses_are_counted_or_malloc_is_special(kept, monkeypatch):
    assert kept(WATCHED) == ["watched"]
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, resource.RLIM_INFINITY))\n"
    assert kept(limit + WATCHED) == []
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=1")
    assert kept(WATCHED) == []
