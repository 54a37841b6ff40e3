"""Lower-casing before everything else that a tokenizer does to a text."""

import json

import tokenizers
from tokenizers import normalizers


def lower_first(backend: tokenizers.Tokenizer) -> None:
    """Make a tokenizer lower-case its texts, in place; one that does so already is left as it is.

    As sentence-transformers does where a model's settings say `do_lower_case`. Special tokens are found before.

    Args:
      backend: a tokenizer of the `tokenizers` library.

    >>> backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "A": 1}))
    >>> lower_first(backend)
    >>> backend.encode("A").ids
    [0]
    """
    rules = json.loads(backend.to_str())["normalizer"] or {}
    for rule in rules.get("normalizers", [rules]):
        if rule.get("type") == "Lowercase" or (rule.get("type") == "BertNormalizer" and rule["lowercase"]):
            return
    rest = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
