"""A tokenizer of the `tokenizers` library made of a vocabulary, a class and what the files beside it declare."""

from collections.abc import Mapping

import tokenizers
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from ..errors import TextError
from .declared import Declared
from .tokenizer_class import TokenizerClass
from .tokenizer_settings import TokenizerSettings
from .vocabulary import Vocabulary, refusals


def build(
    kind: TokenizerClass, vocabulary: Vocabulary, declared: Declared, settings: TokenizerSettings, source: str
) -> tokenizers.Tokenizer:
    """The tokenizer that a class makes of a vocabulary.

    Args:
      kind: the class.
      vocabulary: its words.
      declared: what the files beside the vocabulary say.
      settings: the same, with what the class has where they say nothing.
      source: names the vocabulary in errors.

    Raises:
      TextError: the vocabulary lacks the unknown token or what stands around a text, an added token cannot have its id,
        or the tokenizers library refuses it.
    """
    tokens = {name: str(token) for name, token in settings.tokens.items()}
    with refusals(source):
        try:
            backend = kind.build(vocabulary, declared, tokens)
        except KeyError as error:  # of `tokens`
            raise TextError(
                f"{declared.source}: {error.args[0]} is null, but {source} is of no use without."
            ) from error
        _require(kind, backend, declared, tokens, source)
        add_tokens(backend, declared, settings, source)
        if kind.around is not None:
            known = backend.get_vocab(with_added_tokens=True)
            first, last = ((tokens[name], known[tokens[name]]) for name in kind.ends)
            backend.post_processor = kind.around((first, last), declared)
        else:
            backend.post_processor = vocabulary.rows or between(backend, *_asked(declared, tokens, vocabulary))
    return backend


def add_tokens(backend: tokenizers.Tokenizer, declared: Declared, settings: TokenizerSettings, source: str) -> None:
    """Add the tokens that a vocabulary has besides its words, in the order in which transformers adds them.

    Args:
      backend: changed in place.
      declared: what the files beside the vocabulary say.
      settings: the special tokens.
      source: names the vocabulary in errors.

    Raises:
      TextError: a token would get another id than the files give it.
    """
    there = backend.get_added_tokens_decoder().values()
    known = {repr(token) for token in there}
    fresh: list[str | AddedToken] = [t for _, t in sorted(declared.added.items()) if repr(t) not in known]
    strings = {str(token) for token in (*there, *fresh)}
    for special in (*settings.tokens.values(), *settings.extra):
        if str(special) not in strings and special not in fresh:
            fresh.append(special)
    named = {str(token) for token in settings.tokens.values()}
    with refusals(source):
        for token in fresh:
            added = AddedToken(token, special=True) if isinstance(token, str) else token
            added.special = added.special or str(added) in named
            backend.add_tokens([added])
    for number, listed in declared.added.items():
        if (got := backend.token_to_id(listed.content)) != number:
            raise TextError(
                f"{source}: the added token {listed.content!r} must have the id {number}, as listed beside the "
                f"vocabulary; the next free id is {got}. Is the vocabulary another one, or does it list a word twice?"
            )


def _require(
    kind: TokenizerClass, backend: tokenizers.Tokenizer, declared: Declared, tokens: Mapping[str, str], source: str
) -> None:
    """Refuse a vocabulary that lacks what every row needs: transformers would give it an id that no training saw."""
    needed = [tokens.get(name, name) for name in (kind.ends if kind.around else ())]
    needed += [unknown for unknown in [getattr(backend.model, "unk_token", None)] if unknown]
    listed = {str(token) for token in declared.added.values()}
    missing = [token for token in dict.fromkeys(needed) if token not in listed and backend.token_to_id(token) is None]
    if missing:
        raise TextError(
            f"{source}: the vocabulary must have {', '.join(dict.fromkeys(needed))}; it lacks {', '.join(missing)}."
        )


def _asked(declared: Declared, tokens: Mapping[str, str], vocabulary: Vocabulary) -> list[list[str]]:
    """The tokens that `add_bos_token` and `add_eos_token` put around each text; they count without `tokenizer.json`."""
    names = ("bos_token", "eos_token")
    return [
        [tokens[n]] if n in tokens and not vocabulary.whole and declared.flag(f"add_{n}", False) else [] for n in names
    ]


def between(backend: tokenizers.Tokenizer, first: list[str], last: list[str]) -> TemplateProcessing:
    """Rows of one text, or of two of which the second is segment 1, each between these tokens.

    Args:
      backend: has their ids.
      first: the token before each text, or nothing.
      last: the token after each, or nothing.
    """
    one, two = (
        [f"{t}:{k}" for t in first] + [f"${name}:{k}"] + [f"{t}:{k}" for t in last] for k, name in enumerate("AB")
    )
    ends = [(token, backend.token_to_id(token)) for token in dict.fromkeys(first + last)]
    return TemplateProcessing(single=one, pair=one + two, special_tokens=ends)
