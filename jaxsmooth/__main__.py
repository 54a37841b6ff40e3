"""The command `jaxsmooth`, also `python -m jaxsmooth`: ready for Ctrl-C before the seconds that importing jax takes."""

import signal
import sys
from typing import Any

AGAIN = 2.0
"""Seconds after which an interrupt that had no effect is repeated."""


def main() -> int:
    """Run `jaxsmooth.cli.main`; 130 for an interrupt, whenever it comes."""
    _catch_interrupts()
    try:
        from .terminal import guard_process

        guard_process()
        from .cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("jaxsmooth: interrupted; no file was left half-written.", file=sys.stderr)
        return 130
    finally:
        _stop_repeating()


def _catch_interrupts() -> None:
    # A shell starts a background job with Ctrl-C ignored, and it stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    # Python drops an exception that comes inside a destructor or a callback of C code, so one may not be enough.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    raise KeyboardInterrupt


def _stop_repeating() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
