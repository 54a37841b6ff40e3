"""Every error jaxsmooth raises on purpose. Each message says what was expected, what came, and the usual cause."""

import math
import numbers
from typing import TypeGuard


class JaxsmoothError(Exception):
    """Base class: `except JaxsmoothError` catches every deliberate refusal and nothing else."""


class ConfigError(JaxsmoothError, ValueError):
    """A model configuration that is unreadable, inconsistent, or of an unsupported family."""


class CheckpointError(JaxsmoothError, ValueError):
    """Weights that are missing, unexpected, mis-shaped, mis-typed or corrupt."""


class ShapeError(JaxsmoothError, ValueError):
    """Arrays whose shapes, dtypes or values do not fit together."""


class OptionError(JaxsmoothError, ValueError):
    """The name of an option, or a value for it, that does not exist or is out of range."""


class TextError(JaxsmoothError, ValueError):
    """Text or a vocabulary that cannot be read or tokenised."""


class DataError(JaxsmoothError, ValueError):
    """Data of a task that cannot be read, or do not fit the task."""


class NotFiniteError(DataError):
    """Outputs that are to be scored, of which some are NaN."""


class AssetError(JaxsmoothError, OSError):
    """A pinned asset that cannot be fetched, verified, unpacked or found."""


class StorageError(JaxsmoothError, OSError):
    """A disk without room, or a folder that another run holds or that can no longer be written."""


class DivergedError(JaxsmoothError, ArithmeticError):
    """Numbers of a model, or of its training, that are no longer finite."""


class PreemptedError(JaxsmoothError):
    """A training that was asked to end (SIGTERM), and did after a checkpoint."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is one real number, of Python or numpy, and not a bool.

    >>> import numpy as np
    >>> is_number(1.5), is_number(np.float32(2)), is_number(True), is_number("1"), is_number([1.0])
    (True, True, False, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_int(value: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int]:
    """Whether a value is an int, and not a bool, from `least` to `most`.

    >>> is_int(3, 1), is_int(True, 1), is_int(3.0, 1), is_int(3, 1, 2)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def require_int(name: str, value: object, least: int, error: type[JaxsmoothError], *, optional: bool = False) -> None:
    """Refuse what is no int, or a bool, or below `least`.

    Args:
      name: what the caller calls the value.
      value: what came.
      least: the smallest value allowed.
      error: the exception's class.
      optional: whether None is allowed too.

    Raises:
      JaxsmoothError: an `error`.

    >>> require_int("limit", 0, 1, TextError, optional=True)
    Traceback (most recent call last):
    jaxsmooth.errors.TextError: limit must be a whole number of at least 1, or None; got 0.
    """
    if not is_int(value, least) and not (optional and value is None):
        raise error(f"{name} must be a whole number of at least {least}{', or None' * optional}; got {value!r}.")
