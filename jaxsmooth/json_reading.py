"""JSON from files of unknown origin, read so that no nesting exhausts the interpreter's stack."""

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

DEEPEST = 200

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def loads(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read JSON, refusing what is nested deeper than `DEEPEST`.

    Python's reader recurses, and at the end of the stack whatever the garbage collector calls fails too, with an
    exception that nobody can catch. So the depth is counted before anything is read.

    Args:
      text: JSON; bytes in UTF-8, -16 or -32.
      object_pairs_hook: as that of `json.loads`.

    Returns:
      The value.

    Raises:
      ValueError: no JSON, bytes that are no text, or nested too deeply.

    >>> loads('{"rows": [1, 2]}')
    {'rows': [1, 2]}
    >>> loads("[" * 1000)
    Traceback (most recent call last):
    ...
    ValueError: nested too deeply: more than 200 brackets are open at once
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    # Most texts have too few brackets to be deep, and need no second look.
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise ValueError(f"nested too deeply: more than {DEEPEST} brackets are open at once")
    return json.loads(text, object_pairs_hook=object_pairs_hook)


def _depth(text: str) -> int:
    """The most brackets that are open at once, outside strings."""
    steps = (_STEP.get(character, 0) for character in re.sub(r"[^\[\]{}]+", "", _STRING.sub("", text)))
    return max(itertools.accumulate(steps))
