"""Freed memory is given back to the system, or kept for the next step, as the C library is told."""

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsmooth import heap

GLIBC = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@GLIBC
def test_what_was_freed_in_pieces_is_given_back():
    pieces = [bytes(50_000) for _ in range(4_000)]  # 200 MB, each too small for pages of its own
    last = bytes(50_000)  # above them, so that glibc does not give them back by itself
    full = resident()
    del pieces
    heap.release_freed()
    assert full - resident() > 100e6
    assert len(last) == 50_000


def test_without_such_a_library_nothing_happens(monkeypatch):
    def without(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", without)
    heap.release_freed()
    heap.keep_freed()


FAULTS = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
from jaxsmooth.heap import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
large = jax.jit(lambda x: jnp.fft.ifft(jnp.fft.fft(x)).real.sum())  # 64 MiB each, that XLA needs for a moment
x = jnp.asarray(np.ones((256, 32768), np.float32))
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large(x).block_until_ready()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@GLIBC
def test_the_same_memory_serves_the_next_step():
    """Page faults of XLA's temporary memory, which is fresh in each call of a program unless it is kept."""

    def least(which: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, which], capture_output=True, check=True)
        return min(map(int, done.stdout.split()))

    assert least("given back") > 64 * 2**20 / resource.getpagesize()
    assert least("kept") < 1000  # the first calls still find their places
