"""Every error jaxsmooth raises on purpose. Each message says what was expected, what came, and the usual cause."""

import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard, TypeVar, cast

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])


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


class ArgumentError(OptionError, TypeError):
    """A call with an argument that a function does not have, or without one that it needs."""


class TextError(JaxsmoothError, ValueError):
    """Text or a vocabulary that cannot be read or tokenised."""


class DataError(JaxsmoothError, ValueError):
    """Data of a task that cannot be read, or do not fit the task."""


class NotFiniteError(DataError):
    """Outputs that are to be scored, of which some are NaN."""


class AssetError(JaxsmoothError, OSError):
    """A pinned asset that cannot be fetched, verified, unpacked or found."""


class StorageError(JaxsmoothError, OSError):
    """A disk without room, a file that cannot be read, a folder that another run holds or that cannot be written."""


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


def arguments_checked(function: F) -> F:
    """Let a function refuse arguments that do not fit it by an error of this library, in place of a bare TypeError.

    A call that succeeds costs nothing: only where a TypeError, ValueError or AttributeError comes out are the arguments
    looked at, by name and number and by the plain types among the function's annotations.

    Args:
      function: any with a signature.

    Returns:
      The function, which raises `ArgumentError`; other errors pass.

    >>> @arguments_checked
    ... def paint(wall: str, *, colour: str = "red"):
    ...     return wall.upper()
    >>> paint("north", color="blue")
    Traceback (most recent call last):
    jaxsmooth.errors.ArgumentError: paint has no argument 'color'. Did you mean 'colour'?
    >>> paint()
    Traceback (most recent call last):
    jaxsmooth.errors.ArgumentError: paint needs 'wall'. Its arguments are wall, colour.
    >>> paint("north", "blue")
    Traceback (most recent call last):
    jaxsmooth.errors.ArgumentError: paint takes 1 argument by position; got 2. The others go by name: colour.
    >>> paint(3)
    Traceback (most recent call last):
    jaxsmooth.errors.ArgumentError: paint: wall must be a string; got int (3).
    """

    @functools.wraps(function)
    def checked(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except (TypeError, ValueError, AttributeError) as error:
            if type(error) not in (TypeError, ValueError, AttributeError):
                raise  # said on purpose, here or by another library
            refusal = _misfit(function, values, named)
            if refusal is None:
                raise
            raise refusal from error

    return cast(F, checked)


def _misfit(function: Callable[..., Any], values: tuple[Any, ...], named: dict[str, Any]) -> ArgumentError | None:
    """What is wrong with a call; None where nothing is seen."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*values, **named)
    except TypeError:
        return ArgumentError(f"{function.__name__} {_unbound(signature, values, named)}")
    for name, value in bound.arguments.items():
        one = signature.parameters[name]
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) or value is one.default:
            continue
        kinds = _kinds(one.annotation)
        if kinds and not any(_fits(kind, value) for kind in kinds):
            words = " or ".join(dict.fromkeys(_WORDS.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds))
            shown = f" ({value!r:.60})" if isinstance(value, (str, bytes, numbers.Number)) else ""
            return ArgumentError(f"{function.__name__}: {name} must be {words}; got {type(value).__name__}{shown}.")
    return None


def _unbound(signature: inspect.Signature, values: tuple[Any, ...], named: dict[str, Any]) -> str:
    """Why a call does not fit a signature, without the function's name."""
    known = list(signature.parameters.values())
    names = [one.name for one in known if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    listed = f" Its arguments are {', '.join(names)}." if names else " It takes none."
    unknown = [name for name in named if name not in names]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in known):
        return f"has no argument {unknown[0]!r}.{did_you_mean(unknown[0], names) or listed}"
    placed = [one.name for one in known if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(values) > len(placed):
        rest = [name for name in names if name not in placed]
        by_name = f" The others go by name: {', '.join(rest)}." if rest else listed
        return f"takes {len(placed)} argument{'s' * (len(placed) != 1)} by position; got {len(values)}.{by_name}"
    given = placed[: len(values)]
    twice = [name for name in given if name in named]
    if twice:
        return f"got {twice[0]!r} twice, by position and by name.{listed}"
    lacking = [one.name for one in known if one.name in names and one.default is one.empty]
    return f"needs {' and '.join(repr(name) for name in lacking if name not in (*given, *named))}.{listed}"


_WORDS: dict[Any, str] = {
    str: "a string",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    type(None): "None",
    Callable: "a function",
    Mapping: "a mapping",
    Sequence: "a sequence",
    Iterable: "an iterable",
    dict: "a dictionary",
}
_ANYTHING: tuple[Any, ...] = ()


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The plain types that an annotation allows; () where it says more than these can."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        each = [_kinds(part) for part in typing.get_args(annotation)]
        return tuple(kind for kinds in each for kind in kinds) if all(each) else _ANYTHING
    if annotation is None:
        return (type(None),)
    kind = typing.get_origin(annotation) or annotation
    plain = isinstance(kind, type) and kind is not object and not hasattr(kind, "dim_str")
    return (kind,) if plain and kind is not inspect.Parameter.empty else _ANYTHING


def _fits(kind: Any, value: object) -> bool:
    if kind is float:
        return is_number(value)
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is Sequence and isinstance(value, (str, bytes)):
        return False
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol
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
