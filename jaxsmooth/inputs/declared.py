"""What the JSON files beside a vocabulary declare: special tokens, added tokens, limits and sides.

`tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and the added tokens of `tokenizer.json` are
merged as transformers 5.24 merges them: where the first lists `added_tokens_decoder`, it alone counts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken

from ..errors import TextError, is_int
from .text_files import read_object_if_there

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have names, in the order in which missing ones are added to a vocabulary."""

_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


class Declared(NamedTuple):
    """What the files say of a tokenizer, apart from its vocabulary.

    Attributes:
      source: `tokenizer_config.json`, for errors.
      config: its content, every key as it was.
      tokens: the named special tokens that are given, also those with names of the model's own; None for one that is
        said not to exist.
      extra: special tokens without a name; None where nothing is said.
      additional: the same by its older name, which counts where `extra` is None.
      added: the added tokens by their ids.
    """

    source: Path
    config: dict[str, Any]
    tokens: dict[str, str | AddedToken | None]
    extra: list[str | AddedToken] | None
    additional: list[str | AddedToken] | None
    added: dict[int, AddedToken]

    def choice(self, name: str) -> bool | None:
        """A setting that is true, false, or left open by null or absence.

        Raises:
          TextError: it is something else.
        """
        value = self.config.get(name)
        if not isinstance(value, (bool, type(None))):
            raise TextError(f"{self.source}: {name} must be true, false or null; got {value!r}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A setting that is true or false, the default where it is left open; refuses as `choice`."""
        value = self.choice(name)
        return default if value is None else value


def read_declared(path: Path, whole: Mapping[str, Any]) -> Declared:
    """Read the files beside a vocabulary.

    Args:
      path: the directory.
      whole: the content of `tokenizer.json`; {} without one.

    Raises:
      TextError: an unreadable file, or a token that is none.
    """
    config = read_object_if_there(path / CONFIG)
    values = dict(config)
    if "additional_special_tokens" in values and not values.get("extra_special_tokens"):
        values["extra_special_tokens"] = values.pop("additional_special_tokens")
    alone = "added_tokens_decoder" in config
    if not alone:
        values |= _special_map(path / SPECIAL, values)
    own = values.get("extra_special_tokens")
    if isinstance(own, dict):  # special tokens with names of the model's own
        values |= own | {"extra_special_tokens": None}
    lists = {key: _tokens(values.get(key), key, path) for key in ("extra_special_tokens", "additional_special_tokens")}
    # The booleans add_bos_token and add_eos_token end like the name of a token.
    keys = [key for key in values if key.endswith("_token") and (key in NAMES or isinstance(values[key], (str, dict)))]
    tokens = {key: None if values[key] is None else _token(values[key], key, path / CONFIG) for key in keys}
    special = {str(tokens[name]) for name in NAMES if tokens.get(name)} | set(
        map(str, lists["extra_special_tokens"] or ())
    )
    if alone:
        added = _by_id(config["added_tokens_decoder"], path / CONFIG)
    else:
        added = _by_token(read_object_if_there(path / ADDED), special, path / ADDED) | _of_json(whole, path)
    # Where a token is listed with its flags, the name means that one.
    listed = {str(token): token for token in added.values()}
    tokens |= {n: listed.get(str(tokens[n]), tokens[n]) for n in NAMES if tokens.get(n) is not None}
    return Declared(
        path / CONFIG, config, tokens, lists["extra_special_tokens"], lists["additional_special_tokens"], added
    )


def _special_map(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """`special_tokens_map.json`, its tokens with flags special, its extra tokens joined to those of the config."""
    found = read_object_if_there(path)
    for key, value in found.items():
        if isinstance(value, dict) and key != "extra_special_tokens":
            found[key] = value | {"special": True}
        elif key == "extra_special_tokens" and isinstance(value, list):
            before = values.get(key)
            found[key] = [*(before if isinstance(before, list) else ()), *value]
    return found


def _tokens(values: Any, key: str, path: Path) -> list[str | AddedToken] | None:
    if values is None:
        return None
    if not isinstance(values, list):
        raise TextError(f"{path / CONFIG}: {key} must be a list of tokens; got {values!r:.80}.")
    special = [value | {"special": True} if isinstance(value, dict) else value for value in values]
    return [_token(value, key, path / CONFIG) for value in special]


def _token(value: Any, name: str, path: Path) -> str | AddedToken:
    """A token as files give it: a string, or an object of the token and how it is looked for in a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {key: value[key] for key in _FLAGS if key in value}
        if all(isinstance(flag, bool) for key, flag in flags.items() if key != "content"):
            return AddedToken(**flags)
    raise TextError(f"{path}: {name} must be a token, or an object that has it as content; got {value!r:.80}.")


def _by_id(values: Any, path: Path) -> dict[int, AddedToken]:
    if not isinstance(values, dict) or not all(key.isdecimal() for key in values):
        raise TextError(f"{path}: added_tokens_decoder must be an object of ids and tokens; got {values!r:.80}.")
    return {int(key): _added(value, path) for key, value in values.items()}


def _by_token(values: dict[str, Any], special: set[str], path: Path) -> dict[int, AddedToken]:
    wrong = [token for token, number in values.items() if not is_int(number, 0)]
    if wrong:
        raise TextError(f"{path}: the id of {wrong[0]!r} must be a whole number; got {values[wrong[0]]!r:.80}.")
    return {
        number: AddedToken(token, normalized=token not in special, special=token in special)
        for token, number in values.items()
    }


def _of_json(whole: Mapping[str, Any], path: Path) -> dict[int, AddedToken]:
    source, listed = path / "tokenizer.json", whole.get("added_tokens") or []
    if not isinstance(listed, list) or not all(isinstance(v, dict) and is_int(v.get("id"), 0) for v in listed):
        raise TextError(f"{source}: added_tokens must be a list of tokens with their ids; got {listed!r:.80}.")
    return {value["id"]: _added(value, source) for value in listed}


def _added(value: Any, path: Path) -> AddedToken:
    token = _token(value, "an added token", path)
    if isinstance(token, str):
        raise TextError(f"{path}: an added token must be an object with its content; got {value!r:.80}.")
    return token
