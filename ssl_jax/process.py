"""What a process sets before it computes: where compiled programs are kept, and a heap that keeps its pages."""

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import resource
import stat
import sys
import zlib
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from ssl_jax.heap_pieces import Pieces

LIMIT_BYTES = 4 * 2**30
"""What the folder of compiled programs may hold at a start; beyond it, those used longest ago are removed."""
LEAST_SECONDS = 0.1
"""Programs that compile faster are not kept: a start that reads them back as well is no shorter."""
_ARENAS, _MMAP, _TRIM = -8, -4, -1  # of malloc.h: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD
_HUGE_PAGES, _HUGE_PAGE_BYTES = 14, 2**21  # of madvise: MADV_HUGEPAGE


def begin() -> None:
    """Both of the below; for scripts, before anything is computed."""
    keep_heap()
    keep_compiled()


def keep_compiled() -> None:
    """Lets the next process find what this one compiles, in `compiled_folder()`.

    Leaves alone what the user set: `JAX_COMPILATION_CACHE_DIR` or another jax setting of the cache. Off with
    `JAX_ENABLE_COMPILATION_CACHE=false`. A folder that cannot serve costs one line on stderr and no run: one that is
    another user's, or that others may write to, could hold programs of theirs.
    """
    if not jax.config.jax_enable_compilation_cache:
        return
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or jax.config.jax_compilation_cache_dir is not None:
        return
    folder = compiled_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fault = _fault(folder)
        if not fault:
            bound(folder, LIMIT_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        fault = getattr(error, "strerror", None) or str(error)
    if fault:
        print(
            f"compiled programs are not kept, so every start compiles: {folder} ({fault}); "
            "JAX_COMPILATION_CACHE_DIR names another folder",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def compiled_folder() -> pathlib.Path:
    """Where compiled programs are kept: below `$XDG_CACHE_HOME` or `~/.cache`, one folder for each kind of processor.

    Homes are shared by machines, and what was compiled for one processor may not run on another.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    kind = "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    name = f"{platform.machine()}-{zlib.crc32(kind.encode()):08x}"
    return pathlib.Path(home).expanduser() / "ssl_jax" / "compiled" / name


def bound(folder: pathlib.Path, limit_bytes: int) -> None:
    """Removes the programs used longest ago until the folder holds `limit_bytes` at most."""
    # JAX's own bound needs another package, and a lock that every process waits for.
    found = []
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process removes as well
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    held = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if held <= limit_bytes:
            return
        path.unlink(missing_ok=True)
        path.with_name(path.name.removesuffix("-cache") + "-atime").unlink(missing_ok=True)
        held -= size


@contextlib.contextmanager
def compiling_afresh() -> Iterator[None]:
    """Inside the block nothing compiled is read from the folder or put there: for timing the compiler."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # else JAX goes by what it decided at the first program
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def keep_heap() -> bool:
    """Keeps freed memory in the process, where it computes on the CPU with glibc; whether it did.

    XLA frees the scratch memory of a program after each call. glibc hands so large a block back to the system, which
    then fills every page of it with zeros again in the next step. Kept memory may lie in huge pages too, which spare
    the processor most of its search for small ones. What compilations leave in pieces is set aside (`heap_pieces`).
    Costs memory, and is off with `SSL_JAX_KEEP_HEAP=0`.
    To be called before JAX starts its threads.
    """
    if os.environ.get("SSL_JAX_KEEP_HEAP") == "0" or platform.libc_ver()[0] != "glibc" or not _computes_on_cpu():
        return False
    libc = ctypes.CDLL(None)
    if not all([libc.mallopt(_ARENAS, 1), libc.mallopt(_MMAP, 0), libc.mallopt(_TRIM, -1)]):
        return False
    # Both cost addresses, and know glibc's malloc as it is by itself.
    if not (_addresses_are_counted() or _malloc_is_special()):
        _take_huge_pages(libc)
        Pieces().watch()
    return True


def _take_huge_pages(libc):
    """Lets the heap grow where the system may back it with huge pages; what is not used costs addresses only."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    length = min(8 * 2**30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    block = libc.malloc(length)
    if block:
        skipped = -block % _HUGE_PAGE_BYTES
        libc.madvise(block + skipped, length - skipped, _HUGE_PAGES)  # a system without them says no
        libc.free(block)


def _addresses_are_counted():
    """By a limit of the process or a system that commits no more than it has."""
    limited = any(
        resource.getrlimit(kind) != (resource.RLIM_INFINITY,) * 2 for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    )
    try:
        return limited or pathlib.Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True


def _malloc_is_special():
    """Another than glibc's, or one that fills what it gives out."""
    told = [os.environ.get("GLIBC_TUNABLES", ""), *os.environ]  # MALLOC_PERTURB_ is a variable of its own
    return bool(os.environ.get("LD_PRELOAD")) or any("perturb" in text.lower() for text in told)


def _computes_on_cpu():
    """Told without asking JAX for its devices, which would start its threads."""
    if jax.config.jax_platforms:
        return jax.config.jax_platforms.split(",")[0] == "cpu"
    accelerators = importlib.metadata.entry_points(group="jax_plugins")
    return not accelerators and not any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


def _fault(folder):
    status = folder.stat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return "it is another user's"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others may write to it"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written to"
