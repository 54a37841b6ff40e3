"""The model card, README.md beside a saved model: what the files say of it, and what only its maker can say.

Its head is the YAML that the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards).
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import yaml

from ...bert.params import Encoder

CARD = "README.md"
MARK = "<!-- written by jaxsmooth"
"""A card without this line is somebody's own, and stays."""

PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "span": "question-answering",
    "masked_lm": "fill-mask",
}


def put_card(new: Path, folder: Path, card: str) -> None:
    """Write a card among the new files of a folder, unless the folder has one of somebody's own.

    Args:
      new: where the files are made that are to take their places in `folder`.
      folder: the model's.
      card: the text.
    """
    there = folder / CARD
    if there.exists() and MARK not in there.read_text(encoding="utf-8", errors="replace"):
        (new / CARD).unlink(missing_ok=True)
    else:
        (new / CARD).write_bytes(card.encode())


def model_card(
    model: Encoder, name: str, *, plain: bool, kind: str | None = None, trained: Mapping[str, Any] | None = None
) -> str:
    """The text of the card.

    Args:
      model: the encoder.
      name: the folder's.
      plain: whether transformers reads the files as they are.
      kind: what the head does; None for an encoder alone.
      trained: what was trained on what, to be shown as YAML.

    >>> import jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> print(model_card(model, "mine", plain=True).partition("\\n\\n")[0])
    ---
    library_name: transformers
    tags:
    - jaxsmooth
    - bert
    ---
    """
    config = model.config
    head = {"library_name": "transformers" if plain else "jaxsmooth", "tags": ["jaxsmooth", config.family]}
    if kind in PIPELINES:
        head["pipeline_tag"] = PIPELINES[kind]
    leaves = jax.tree.leaves(model)
    parameters = sum(leaf.size for leaf in leaves)
    what = f"an encoder with a head ({kind.replace('_', ' ')})" if kind else "an encoder"
    lines = [
        f"---\n{_yaml(head)}---\n",
        f"{MARK} {version('jaxsmooth')}, and anew by its next save; without this line the file stays as it is -->\n",
        f"# {name}\n",
        f"{config.family}, {what}: {config.layers} layers, {config.heads} heads, width {config.width}, MLP width"
        f" {config.mlp_width}, {parameters:,} parameters in the encoder, {leaves[0].dtype}."
        f"{f' {config.note.capitalize()}.' if config.note else ''}\n",
        _use(plain, kind),
    ]
    if trained is not None:
        lines.append(f"## Training\n\n````yaml\n{_yaml(trained)}````\n\n`jaxsmooth evaluate FOLDER` gives its score.\n")
    lines.append(
        "## To be said by its maker\n\nThe licence of the weights that it was made from and of the data, what it is"
        " for, where it fails: jaxsmooth does not know.\n"
    )
    return "\n".join(lines)


def _use(plain: bool, kind: str | None) -> str:
    readers = "jaxsmooth and transformers read" if plain else "jaxsmooth reads"
    call = "model, tokenizer = jaxsmooth.load" if kind is None else "model, head, tokenizer = jaxsmooth.load_with_head"
    if kind is not None and not plain:
        return f"{readers} this folder: `jaxsmooth predict FOLDER --data FILE`.\n"
    return f'{readers} this folder.\n\n```python\nimport jaxsmooth\n\n{call}("FOLDER")\n```\n'


def _yaml(tree: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=100)
