"""A test that hangs or gorges is stopped."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

SECONDS, GIBIBYTES = 10.0, 2


class HangError(BaseException):
    """Not an Exception, so that no `except` in the library takes it for its own."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """At most SECONDS of time and GIBIBYTES of fresh address space, where the platform can say."""

    def ring(signum, frame):
        raise HangError(f"no answer within {SECONDS} s")

    old_handler = signal.signal(signal.SIGALRM, ring)
    old_limit = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + GIBIBYTES * 2**30, old_limit[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        resource.setrlimit(resource.RLIMIT_AS, old_limit)
