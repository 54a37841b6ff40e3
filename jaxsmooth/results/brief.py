"""How a result looks at a prompt: one or two lines, never arrays in full; and digits that a person can read."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MISSING = "n/a"
LONGEST = 200
"""Characters of a description after which it is cut."""


def digits(value: float | None) -> str:
    """Format a number with about three significant digits, the same way everywhere in the report.

    Args:
      value: any number; None and NaN mean that there is no value.

    Returns:
      Text such as ``0.438``, ``5,012`` or ``n/a``.

    >>> [digits(x) for x in (0.4382, 12.34, 5012.4, 2.5e7, 0.0, float("nan"))]
    ['0.438', '12.3', '5,012', '2.5e+07', '0', 'n/a']
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001 or size >= 9_999_999.5:
        return f"{value:.1e}"
    # Limits are where rounding would add a digit: 99.96 must not become 100.0.
    decimals = 3 if size < 0.9995 else 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:,.{decimals}f}"


def span(values: Any) -> str:
    """The smallest to the largest of what is finite.

    >>> span(np.array([0.5, np.nan, 1200.0])), span(np.array([1.0, 1.0])), span(np.array([np.nan]))
    ('0.500 to 1,200', '1.00', 'n/a')
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return MISSING
    low, high = digits(float(known.min())), digits(float(known.max()))
    return low if low == high else f"{low} to {high}"


def one_line(text: str, limit: int = LONGEST) -> str:
    """Text from outside on one line: control characters become boxes, what is too long is cut.

    >>> one_line("a\\nb")
    'a□b'
    """
    safe = "".join(c if c.isprintable() else "□" for c in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


class Brief:
    """A dataclass whose `repr` is one line: shapes and ranges in the place of arrays, counts in that of lists."""

    def __repr__(self) -> str:
        assert dataclasses.is_dataclass(self)
        parts = (f"{field.name}={_brief(getattr(self, field.name))}" for field in dataclasses.fields(self))
        return one_line(f"{type(self).__name__}({', '.join(parts)})")


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        shape = f"[{' '.join(map(str, value.shape))}]"
        real = value.dtype.kind in "fiu" and value.size
        return f"{shape} {span(value)}" if real else shape
    if isinstance(value, str):
        return repr(one_line(value, 40))
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}" if len(value) <= 8 else f"{{{len(value)} entries}}"
    if isinstance(value, (tuple, list)):
        plain = len(value) <= 8 and all(isinstance(each, (str, int, float)) for each in value)
        return repr(value) if plain else f"({len(value)} entries)"
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    return digits(float(value)) if isinstance(value, (float, np.floating)) else repr(value)
