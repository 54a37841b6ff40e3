"""The keys of `config.json` that hold rates of dropout, by family. The encoder has none; a training run writes them."""

from collections.abc import Mapping
from typing import NamedTuple


class DropoutKeys(NamedTuple):
    """The keys of one family.

    Attributes:
      hidden: of the embedding and of the sub-layers' outputs.
      attention: of the attention probabilities.
      head: before the output layer; () where the family's classes take the hidden one.
    """

    hidden: tuple[str, ...] = ("hidden_dropout_prob",)
    attention: tuple[str, ...] = ("attention_probs_dropout_prob",)
    head: tuple[str, ...] = ()


_BERT = DropoutKeys(head=("classifier_dropout",))
DROPOUT_KEYS: Mapping[str, DropoutKeys] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _BERT),
    "albert": DropoutKeys(head=("classifier_dropout_prob",)),
    "distilbert": DropoutKeys(("dropout",), ("attention_dropout",), ("seq_classif_dropout", "qa_dropout")),
    "electra": DropoutKeys(head=("classifier_dropout", "summary_last_dropout")),
    **dict.fromkeys(("mpnet", "vit", "deit"), DropoutKeys()),
    "modernbert": DropoutKeys(("embedding_dropout", "mlp_dropout"), ("attention_dropout",), ("classifier_dropout",)),
    "gpt2": DropoutKeys(
        ("embd_pdrop", "resid_pdrop"), ("attn_pdrop",), ("classifier_dropout", "summary_first_dropout")
    ),
}
"""The keys of every family of `checkpoints.families`."""


def dropout_settings(family: str, *, hidden: float, attention: float, head: float) -> dict[str, float]:
    """The keys that say which dropout a model was trained with.

    Args:
      family: transformers' `model_type`.
      hidden: rate on the embedding and on the sub-layers' outputs.
      attention: rate on the attention probabilities.
      head: rate before the output layer.

    Returns:
      Keys of `config.json` and their values.

    >>> dropout_settings("distilbert", hidden=0.1, attention=0.0, head=0.2)
    {'dropout': 0.1, 'attention_dropout': 0.0, 'seq_classif_dropout': 0.2, 'qa_dropout': 0.2}
    """
    keys = DROPOUT_KEYS[family]
    rates = ((keys.hidden, hidden), (keys.attention, attention), (keys.head, head))
    return {key: float(rate) for names, rate in rates for key in names}
