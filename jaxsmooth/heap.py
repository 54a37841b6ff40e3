"""What the C library does with memory that is freed, where it can be told (glibc); elsewhere nothing happens.

Studies load large programs and give back what that leaves; training asks for the same memory in each step and keeps it.
"""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of mallopt, in malloc.h
_PAD = 1 << 28


def release_freed() -> None:
    """Hand what the C library keeps of freed memory back to the system.

    XLA reads, links and drops some hundred MiB for each large program that it loads. glibc holds on to most of that in
    pieces, and the next program's comes on top.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library; no handle of it, as on Windows
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Let the C library keep freed memory, however large its pieces are, for the rest of the process.

    On CPU a training step asks for some hundred MiB in one piece and frees it, which by default are new pages of the
    system's each time: a tenth of a step. To be called before other threads have memory of their own.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _PAD)):
            library.mallopt(option, value)
