"""What orbax says beside what it raises: kept from users, who get one line of ours for each fault.

When one array of a checkpoint cannot be written or read, orbax closes its event loop while others are under way. Each
of these then complains by itself: to the logger of `asyncio`, as a coroutine that was never awaited, or, from
tensorstore's threads, as an exception that nobody can catch. The fault itself is raised all the same.
"""

import logging
import sys
import warnings
from pathlib import Path


def not_of_orbax(record: logging.LogRecord) -> bool:
    """Orbax warns of each checkpoint without a score, and logs what a save that fails raises as well."""
    return record.levelno >= logging.CRITICAL or "orbax" not in Path(record.pathname).parts


def not_abandoned_by_orbax(record: logging.LogRecord) -> bool:
    """What `asyncio` says of an array's writing names orbax's code, or the folder orbax writes to."""
    return "orbax" not in record.getMessage()


def keep_from_users() -> None:
    """Set the filters, for the life of the process. Called once, where orbax is imported."""
    logging.getLogger("absl").addFilter(not_of_orbax)
    logging.getLogger("asyncio").addFilter(not_abandoned_by_orbax)
    warnings.filterwarnings("ignore", "coroutine 'async_(de)?serialize", RuntimeWarning)
    others = sys.unraisablehook

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        if found.object is not None or str(found.exc_value) != "Event loop is closed":
            others(found)

    sys.unraisablehook = unraisable
