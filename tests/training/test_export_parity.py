"""What transformers makes of an exported folder, tokenizer and model together, is what we make of it: `make parity`."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from support.layouts import (
    ROBERTA,
    albert_file,
    byte_pairs,
    camembert,
    directory,
    vocab_and_merges,
    vocab_txt,
    wordpiece,
    xlmr_file,
)
from support.parity import TOLERANCE, precision
from support.training import PLAIN, TASKS, drawn

import jaxsmooth
from jaxsmooth.bert.heads import POOLED, apply_head
from jaxsmooth.checkpoints.config_json import family_config
from jaxsmooth.inputs.tokenizer import Tokenizer
from jaxsmooth.training.export import export_model
from jaxsmooth.training.model import init_task_model

pytestmark = pytest.mark.parity
BERT_NAMES = dict(
    zip(("pad_token", "unk_token", "cls_token", "sep_token"), ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), strict=True)
)
TOKENIZERS = {
    **dict.fromkeys(("bert", "electra", "distilbert"), directory(more=vocab_txt)),
    "albert": directory(more=albert_file),
    "mpnet": directory(more=lambda folder: vocab_txt(folder, [*ROBERTA, "[UNK]"])),
    "roberta": directory(more=vocab_and_merges),
    "xlm-roberta": directory(more=xlmr_file),
    "camembert": directory(camembert, config={"tokenizer_class": "CamembertTokenizer"}),
    "modernbert": directory(wordpiece, config={"tokenizer_class": "PreTrainedTokenizerFast", **BERT_NAMES}),
    "gpt2": directory(functools.partial(byte_pairs, ["<|endoftext|>"])),
}
PADS = {"roberta": 1, "xlm-roberta": 1, "camembert": 1, "mpnet": 1}
CLASSES = {
    "classification": "SequenceClassification",
    "regression": "SequenceClassification",
    "span": "QuestionAnswering",
    "choice": "MultipleChoice",
    "masked_lm": "MaskedLM",
}
TEXTS = ["a film worth seeing is a film", "hello", "it's dull", "a film of two"]
SECOND = ["world", "two worlds of a film is of a film", "x", "hello world"]
CASES = [
    (family, kind)
    for family in TOKENIZERS
    for kind in CLASSES
    if family != "gpt2" or kind not in ("choice", "masked_lm")
]


def export(family: str, kind: str, folder: Path) -> None:
    small = {"embedding_width": 8} if family in ("albert", "electra") else {}
    sizes = {"vocab": 600, "width": 16, "layers": 3, "heads": 2, "mlp_width": 32, "max_length": 64}
    config = family_config(family, **sizes, pad_token=PADS.get(family, 0), **small)
    (folder / "made").mkdir()
    TOKENIZERS[family](folder / "made")
    tokenizer = Tokenizer.from_dir(folder / "made", config)
    shapes = jax.eval_shape(
        lambda: init_task_model(jaxsmooth.init_encoder(config, jax.random.key(0)), TASKS[kind], jax.random.key(1))
    )
    export_model(drawn(shapes), TASKS[kind], tokenizer, PLAIN, folder / "out")


def ours(folder: Path, texts: list[str], pairs: list[str] | None, choices: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and which tokens are real."""
    with precision("float64"):
        model, head, tokenizer = jaxsmooth.load_with_head(folder, dtype="float64")
        batch = tokenizer(texts, pairs)
        hidden, _ = jaxsmooth.encode(model, batch, collect=jaxsmooth.keep_nothing)
        return np.asarray(apply_head(head, model, hidden, batch.mask, choices=choices)), np.asarray(batch.mask)


def theirs(folder: Path, kind: str, texts: list[str], pairs: list[str] | None, choices: int) -> np.ndarray:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    model = getattr(transformers, f"AutoModelFor{CLASSES[kind]}").from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager"
    )
    fed = tokenizer(texts, pairs, padding=True, return_tensors="pt")
    if kind == "choice":
        fed = {key: value.reshape(-1, choices, value.shape[-1]) for key, value in fed.items()}
    with torch.no_grad():
        found = model.eval()(**fed)
    if kind == "span":
        return torch.stack([found.start_logits, found.end_logits], dim=-1).numpy()
    return found.logits.numpy()


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_an_export_is_the_same_model_in_transformers(family, kind, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    import torch

    # ModernBERT's softmax is taken in float32 there, whatever the dtype.
    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(torch.nn.functional, "softmax", lambda x, dim=-1, dtype=None, **_: softmax(x, dim=dim))
    export(family, kind, tmp_path)
    out, choices = tmp_path / "out", TASKS[kind].choices
    alone = [([text] * choices, None) for text in TEXTS] + [
        ([a] * choices, [b] * choices) for a, b in zip(TEXTS, SECOND, strict=True)
    ]
    for texts, pairs in (*alone, (TEXTS, None), (TEXTS, SECOND)):
        mine, mask = ours(out, texts, pairs, choices)
        expected = theirs(out, kind, texts, pairs, choices)
        if kind not in POOLED:
            length = expected.shape[1]
            assert not mask[:, length:].any()
            mine, expected = mine[:, :length][mask[:, :length]], expected[mask[:, :length]]
        tolerance = 1e-7 if family == "modernbert" else TOLERANCE["float64"]  # its rotary angles are float32 there
        np.testing.assert_allclose(mine.reshape(expected.shape), expected, atol=tolerance)
    written = json.loads((out / "config.json").read_text())
    assert written["finetuning_task"] == TASKS[kind].name
    if kind == "classification":
        assert written["id2label"] == {"0": "a", "1": "b", "2": "c"}
        assert written["problem_type"] == "single_label_classification"
