"""SIGTERM as an order to save and end: noticed by a handler, obeyed at the end of a step."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Whether the run was asked to end. Use as a context manager: leaving it puts the former handler back.

    Until the first step is done there is nothing to save, and SIGTERM does what it did before: it ends the process.
    """

    def __init__(self) -> None:
        self.noticed, self.installed = False, False
        self.before: Any = None

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.installed:
            # None stands for a handler that was not installed from Python
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self.before is None else self.before)

    def reached(self, step: int) -> bool:
        """Whether to save and stop after this step; to be asked once after every step, by all processes.

        Args:
          step: how many steps were done.

        Returns:
          The same on all processes: where there are several, jax passes the signal on and agrees on a step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        if not self.installed and threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
                return False
            self.before, self.installed = signal.signal(signal.SIGTERM, self._notice), True
        return self.noticed

    def _notice(self, number: int, frame: Any) -> None:
        self.noticed = True  # once more changes nothing: schedulers send it to a group and to its members
