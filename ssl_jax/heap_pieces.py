"""Pieces of the heap that XLA's compiler leaves, set aside while programs run.

A compilation frees tens of thousands of blocks between others that stay. glibc's malloc looks through such pieces one
after another, under one lock, and a training step asks it for memory thousands of times: a step of SimSiam of width
1/4 took 538 ms in a process that had compiled it and 456 in one that had found it compiled; with the pieces set aside,
480. Before the next program that takes long to lower they go back, and after it has been compiled, or found, they are
set aside again. What they hold meanwhile is addresses: their pages are the system's.
"""

import ctypes
import os

import jax

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # the last that JAX tells before it compiles
COMPILED = "/jax/core/compile/backend_compile_duration"
LEAST_LOWERING_SECONDS, LEAST_COMPILING_SECONDS = 0.1, 1.0  # shorter ones leave little
LEAST_BYTES, MOST_BYTES = 2**10, 2**26  # smaller ones malloc finds at once
_DONT_NEED = 4  # of madvise: MADV_DONTNEED


class _Statistics(ctypes.Structure):
    """What glibc's mallinfo2 answers."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


class Pieces:
    """The pieces that a process has set aside."""

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype, self._libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]
        self._libc.sbrk.restype, self._libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
        self._libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        usable = self._libc.malloc_usable_size
        usable.restype, usable.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._held, self._went_back = [], False

    def __len__(self) -> int:
        return len(self._held)

    def watch(self) -> None:
        """Has them set aside after each long compilation and given back before the next, where glibc is new enough."""
        if hasattr(self._libc, "mallinfo2"):
            self._libc.mallinfo2.restype = _Statistics
            jax.monitoring.register_event_duration_secs_listener(self._on_event)

    def _on_event(self, event, duration_seconds, **_):
        if event == LOWERED and duration_seconds >= LEAST_LOWERING_SECONDS:
            self.give_back()
            self._went_back = True
        elif event == COMPILED and (self._went_back or duration_seconds >= LEAST_COMPILING_SECONDS):
            self._went_back = False
            self.set_aside()

    def set_aside(self) -> None:
        """Takes the free blocks of at least `LEAST_BYTES` below the heap's unused end, the largest first."""
        self.give_back()
        told = self._libc.mallinfo2()
        unused, left = self._libc.sbrk(0) - told.keepcost, told.fordblks - told.keepcost
        size, held = MOST_BYTES, []
        while size >= LEAST_BYTES and left > 0:
            block = self._libc.malloc(size)
            if not block or block >= unused:
                self._libc.free(block)
                size //= 2
                continue
            held.append(block)
            length = self._libc.malloc_usable_size(block)
            left -= length
            self._let_go(block, length)
        self._held += held

    def _let_go(self, block, length):
        """Gives the system the whole pages of a block, which keeps its addresses."""
        first = -(-block // self._page_bytes) * self._page_bytes
        whole = (block + length - first) // self._page_bytes * self._page_bytes
        if whole > 0:
            self._libc.madvise(first, whole, _DONT_NEED)

    def give_back(self) -> None:
        """Frees them."""
        held, self._held = self._held, []  # at once, since two threads may compile
        for block in held:
            self._libc.free(block)
