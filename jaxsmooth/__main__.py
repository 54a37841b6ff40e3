"""The command `jaxsmooth`, also `python -m jaxsmooth`: ready for Ctrl-C before the seconds that importing jax takes.

SIGTERM, by which schedulers end a job, is taken the same way; a training that has something to save has a handler of
its own.
"""

import gc
import signal
import sys
from typing import Any

AGAIN = 2.0
"""Seconds after which an interrupt that had no effect is repeated."""

SELDOM = 100_000
"""New objects after which Python looks for garbage: imports and traces make a million that stay, and looking through
them again and again took a tenth of the time."""


class Terminated(SystemExit):
    """SIGTERM came. A SystemExit, so that what is open is closed and no `except Exception` takes it."""


class _Last:
    """What the last signal stands for, to be raised again."""

    error: type[BaseException] = KeyboardInterrupt


def main() -> int:
    """Run `jaxsmooth.cli.main`; 130 for an interrupt and 143 for SIGTERM, whenever they come."""
    _catch_interrupts()
    gc.set_threshold(SELDOM)
    try:
        from .terminal import guard_process

        guard_process()
        from .cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("jaxsmooth: interrupted; no file was left half-written.", file=sys.stderr)
        return 130
    except Terminated:
        print("jaxsmooth: ended by SIGTERM; no file was left half-written.", file=sys.stderr)
        return 143
    finally:
        _stop_repeating()


def _catch_interrupts() -> None:
    # A shell starts a background job with Ctrl-C ignored, and it stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    # Python drops an exception that comes inside a destructor or a callback of C code, so one may not be enough.
    if number == signal.SIGINT:
        _Last.error = KeyboardInterrupt
    elif number == signal.SIGTERM:
        _Last.error = Terminated
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise _Last.error


def _stop_repeating() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
