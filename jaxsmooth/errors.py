"""Every error jaxsmooth raises on purpose. Each message says what was expected, what came, and the usual cause."""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard, TypeVar

C = TypeVar("C", bound=type)


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


class DerivativeError(JaxsmoothError, TypeError):
    """A derivative in reverse that a function does not have."""


class PreemptedError(JaxsmoothError):
    """A training that was asked to end (SIGTERM), and did after a checkpoint."""


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Ask after the name that was meant, to be put at the end of a refusal.

    Args:
      name: what came.
      names: those there are.

    Returns:
      A sentence with a space before it; "" where no name is near.

    >>> did_you_mean("movie-review", ["tweets", "movie-reviews"]), did_you_mean("x", ["tweets"])
    (" Did you mean 'movie-reviews'?", '')
    """
    import difflib

    known = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(str(name).casefold(), known, 1)
    return f" Did you mean {known[near[0]]!r}?" if near else ""


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


def takes(function: object, count: int) -> bool:
    """Whether something can be called with so many arguments; of some builtins nothing is known, and True is said.

    >>> takes(lambda layer, value: value, 2), takes(lambda value: value, 2), takes(3, 2)
    (True, False, False)
    """
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def names_checked(error: type[JaxsmoothError], what: str) -> Callable[[C], C]:
    """Let a class refuse keywords that it does not have by an error of this library, in place of a TypeError.

    Args:
      error: the exception's class.
      what: what a keyword is called, as "setting".

    Returns:
      A decorator of classes.

    >>> @names_checked(OptionError, "colour")
    ... class Palette:
    ...     def __init__(self, red=0, blue=0): ...
    >>> Palette(reed=1)
    Traceback (most recent call last):
    jaxsmooth.errors.OptionError: there is no colour 'reed'. Did you mean 'red'?
    """

    def checked(cls: C) -> C:
        made: Any = cls.__init__  # type: ignore[misc]
        known = list(inspect.signature(made).parameters)[1:]

        @functools.wraps(made)
        def init(self: Any, *values: Any, **named: Any) -> None:
            for name in named:
                if name not in known:
                    near = did_you_mean(name, known) or f" The {what}s are {', '.join(known)}."
                    raise error(f"there is no {what} {name!r}.{near}")
            made(self, *values, **named)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return checked
