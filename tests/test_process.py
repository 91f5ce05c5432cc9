"""`ssl_jax.process`: where compiled programs go and whose folder it may be, and a heap that keeps its pages."""

import os
import pathlib
import platform

import pytest

from ssl_jax import process

COMPILE = """
import sys
import jax, jax.numpy as jnp
from ssl_jax import process
process.keep_compiled()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.fixture
def compiled(child, tmp_path, monkeypatch):
    """Compiles something in a process that was told nothing but what is given; what it printed and said."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = child(COMPILE)
        return done.stdout.strip(), done.stderr

    return run


def entries(folder):
    return [path for path in folder.rglob("*-cache") if path.is_file()]


def test_what_is_compiled_is_kept_where_only_its_owner_writes(compiled, tmp_path):
    folder, said = compiled()
    assert folder.startswith(str(tmp_path / "cache" / "ssl_jax" / "compiled")) and said == ""
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert entries(tmp_path / "cache")


def test_what_the_user_set_stays(compiled, tmp_path):
    assert compiled(JAX_ENABLE_COMPILATION_CACHE="false") == ("None", "") and not (tmp_path / "cache").exists()
    own = compiled(JAX_ENABLE_COMPILATION_CACHE="true", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))
    assert own == (str(tmp_path / "mine"), "")
    assert entries(tmp_path / "mine") and not (tmp_path / "cache").exists()


def test_a_folder_that_others_write_to_costs_a_line(compiled):
    folder, _ = compiled()
    os.chmod(folder, 0o770)
    there, said = compiled()
    assert there == "None" and said.count("\n") == 1 and "others may write to it" in said and folder in said


def test_a_folder_that_cannot_be_made_costs_a_line(compiled, tmp_path):
    (tmp_path / "file").write_text("")
    there, said = compiled(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert there == "None" and said.count("\n") == 1 and "Not a directory" in said


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert process._fault(tmp_path) == "it is another user's"


def test_the_oldest_go_first(tmp_path):
    for number in range(4):
        path = tmp_path / f"{number}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
        (tmp_path / f"{number}-atime").write_bytes(b"x")
    (tmp_path / "thesis.txt").write_bytes(b"x" * 1000)
    process.bound(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2-atime", "2-cache", "3-atime", "3-cache", "thesis.txt"
    ]  # fmt: skip


def test_compiling_afresh_reads_and_writes_nothing(child, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    source = """
    import os, sys
    import jax, jax.numpy as jnp
    from ssl_jax import process
    def count():
        return sum(name.startswith("jit_f") for name in os.listdir(sys.argv[1])) if os.path.isdir(sys.argv[1]) else 0
    def f(x): return jnp.sin(x) @ x
    lowered = jax.jit(f).lower(jnp.ones((8, 8)))
    with process.compiling_afresh():
        lowered.compile()
    print(count())
    jax.jit(f)(jnp.ones((9, 9)))
    print(count() > 0)
    """
    assert child(source, tmp_path / "cache").stdout.split() == ["0", "True"]


HEAP = """
import ctypes, resource
from ssl_jax import process
print(process.keep_heap())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def faults_after_use():
    block = libc.malloc(2**26)
    libc.memset(block, 1, 2**26)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults_after_use()
print(max(faults_after_use() for _ in range(10)) - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc hands freed memory back so")
def test_freed_memory_stays_in_the_process(child, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("SSL_JAX_KEEP_HEAP")
    kept, faults = child(HEAP).stdout.split()
    monkeypatch.setenv("SSL_JAX_KEEP_HEAP", "0")
    off, faults_without = child(HEAP).stdout.split()
    # Ten blocks of 64 MiB: 32 faults each at the least, where the system's pages are large.
    assert (kept, off) == ("True", "False") and int(faults) < 100 < 300 < int(faults_without)


HUGE = """
import re, sys
from ssl_jax import process
process.keep_heap()
import jax.numpy as jnp
numbers = jnp.ones(2**24).block_until_ready()
print(re.search(r"AnonHugePages: *([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
"""
HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="this system gives huge pages to all or to none",
)
def test_arrays_lie_in_huge_pages(child, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("SSL_JAX_KEEP_HEAP")
    if process._addresses_are_counted() or process._malloc_is_special():
        pytest.skip("addresses are counted here")
    array_kib = 2**16
    assert int(child(HUGE).stdout) > array_kib / 4
    monkeypatch.setenv("MALLOC_PERTURB_", "1")  # glibc would fill all that is reserved
    assert int(child(HUGE).stdout) < array_kib / 4
    monkeypatch.delenv("MALLOC_PERTURB_")
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**43, 2**43))\n"
    assert int(child(limited + HUGE).stdout) < array_kib / 4


def test_other_backends_keep_their_heap(child, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.delenv("SSL_JAX_KEEP_HEAP")
    assert child("from ssl_jax import process\nprint(process.keep_heap())").stdout == "False\n"
