"""SentencePiece's normalisation of a text, for which `tokenizer.json` has no rule: a prefix and replacements."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import TextError
from ..files import atomic_write
from ..json_reading import loads
from .vocabulary import SpecialTokens

FILE = "preparation.json"
"""Beside `tokenizer.json`; no library but this one reads it."""


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Put a prefix before a text and replace characters, all at once.

    Attributes:
      special: the tokens around a text, where they are not those of the family.
      prefix: put before every text.
      replacements: code point -> the characters in its place.
    """

    special: SpecialTokens
    prefix: str
    replacements: Mapping[int, str]

    def __call__(self, text: str) -> str:
        """The text as the vocabulary wants it."""
        return (self.prefix + text).translate(self.replacements)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        pairs = [[code, text] for code, text in sorted(self.replacements.items())]
        values = {"special": list(self.special), "prefix": self.prefix, "replacements": pairs}
        atomic_write(path, json.dumps(values) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Normalizer":
        """From what `save` wrote.

        Raises:
          TextError: another file.
        """
        try:
            values = loads(path.read_text(encoding="utf-8"))
            special = SpecialTokens(*map(str, values["special"]))
            return cls(special, str(values["prefix"]), {int(code): str(text) for code, text in values["replacements"]})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TextError(
                f"{path} must hold special, prefix and replacements as JSON; got {error!r:.200}."
            ) from error
