"""Every error jaxsmooth raises on purpose. Each message says what was expected, what came, and the usual cause."""


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


class AssetError(JaxsmoothError, OSError):
    """A pinned asset that cannot be fetched, verified, unpacked or found."""


def check_whole(name: str, value: object, least: int, error: type[JaxsmoothError]) -> None:
    """Refuse what is not a whole number of at least `least`; True and False are none.

    Args:
      name: of the argument, for the message.
      value: the argument.
      least: the smallest that is allowed.
      error: the class to raise.

    Raises:
      JaxsmoothError: of that class.

    >>> check_whole("limit", True, 1, DataError)
    Traceback (most recent call last):
    ...
    jaxsmooth.errors.DataError: limit must be a whole number of at least 1; got True.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise error(f"{name} must be a whole number of at least {least}; got {value!r}.")
