"""How a tokenizer is used, besides its vocabulary: its special tokens by name, its limit, and which side is cut."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

from ..errors import TextError
from .declared import NAMES, Declared

Token = str | AddedToken

IDS, SEGMENTS, MASK = "input_ids", "token_type_ids", "attention_mask"
_SIDES = ("right", "left")


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
    """How a tokenizer is used.

    Attributes:
      tokens: the special tokens by their names in `tokenizer_config.json`, `pad_token` and so on.
      extra: special tokens without a name.
      max_length: where a text is cut unless another length is asked for; None for the model's own length.
      cut_left: whether a text that is too long loses its beginning, not its end.
      segments: whether the second text of a pair is told apart in the model's input.
      split_special: whether a special token that is spelled in a text is split like other text.
      config: `tokenizer_config.json` as it was read.
    """

    tokens: Mapping[str, Token]
    extra: tuple[Token, ...] = ()
    max_length: int | None = None
    cut_left: bool = False
    segments: bool = True
    split_special: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def string(self, name: str) -> str | None:
        """A named special token, or None."""
        return str(self.tokens[name]) if name in self.tokens else None

    def to_config(self, max_length: int, *, segments: bool) -> dict[str, Any]:
        """What `tokenizer_config.json` says for transformers to give the rows of this library; other keys as they were.

        Args:
          max_length: where a text is cut.
          segments: whether the model is told the second text of a pair by its segment.
        """
        kept = {k: v for k, v in self.config.items() if k not in ("extra_special_tokens", "additional_special_tokens")}
        own = self.config.get("extra_special_tokens")
        return {
            **kept,
            **({"extra_special_tokens": own} if isinstance(own, dict) else {}),
            **({"additional_special_tokens": [str(token) for token in self.extra]} if self.extra else {}),
            # The one class, of transformers 4 and 5, that takes tokenizer.json as it is.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_length,
            "model_input_names": [IDS, *([SEGMENTS] if segments else []), MASK],
            "padding_side": "right",
            "truncation_side": _SIDES[self.cut_left],
            "split_special_tokens": self.split_special,
            **{name: str(token) for name, token in self.tokens.items()},
        }


def settings_of(
    declared: Declared,
    whole: Mapping[str, Any],
    *,
    tokens: Mapping[str, Token],
    extra: tuple[Token, ...] = (),
    segments: bool,
) -> TokenizerSettings:
    """What the files say, and where they say nothing, the class.

    Args:
      declared: what the files beside the vocabulary say.
      whole: the content of `tokenizer.json`; {} without one.
      tokens: the class's special tokens by name.
      extra: the class's special tokens without a name.
      segments: whether the class has segments.

    Raises:
      TextError: a limit, a side, or a list of inputs that is none.
    """
    config, source = declared.config, declared.source
    said = {name: _like(token, tokens.get(name)) for name, token in declared.tokens.items()}
    named = {name: token for name, token in {**tokens, **said}.items() if token is not None}
    others = next((t for t in (declared.extra, declared.additional) if t is not None), extra)
    side = config.get("truncation_side") or (whole.get("truncation") or {}).get("direction", "right")
    inputs = config.get("model_input_names")
    if str(side).lower() not in _SIDES:
        raise TextError(f"{source}: truncation_side must be 'right' or 'left'; got {side!r:.80}.")
    if inputs is not None and not isinstance(inputs, list):
        raise TextError(f"{source}: model_input_names must be a list of names; got {inputs!r:.80}.")
    return TokenizerSettings(
        {name: named[name] for name in sorted(named, key=_order)},
        tuple(others),
        _limit(declared),
        str(side).lower() == "left",
        segments if inputs is None else SEGMENTS in inputs,
        bool(declared.flag("split_special_tokens", False)),
        config,
    )


def _order(name: str) -> int:
    return NAMES.index(name) if name in NAMES else len(NAMES)


def _like(token: Token | None, default: Token | None) -> Token | None:
    """A token given as a string is looked for in texts as the class looks for its own."""
    if isinstance(token, str) and isinstance(default, AddedToken):
        return AddedToken(**(default.__getstate__() | {"content": token}))
    return token


def _limit(declared: Declared) -> int | None:
    value = next((declared.config[k] for k in ("model_max_length", "max_len") if k in declared.config), None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 1:
        raise TextError(f"{declared.source}: model_max_length must be a number of at least 1; got {value!r:.80}.")
    return int(min(value, 2**62))  # "no limit" is written as 1e30
