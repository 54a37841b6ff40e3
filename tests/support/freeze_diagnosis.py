"""Write tests/support/frozen/minilm-l6-diagnosis.npz: what reference_ladder.py measures on minilm-l6, in float64.

    python tests/support/freeze_diagnosis.py DIR

DIR is MiniLM's Hugging Face directory. Two minutes on 2 cores; needs numpy and scipy, neither jax nor torch.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from support import reference_ladder
from support.make_frozen import FROZEN

FILE = FROZEN / "minilm-l6-diagnosis.npz"


def minilm_diagnosis(directory: Path, texts: list[str]) -> dict[str, dict]:
    """The independent implementation's diagnosis of some texts: name -> field -> values."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encoded = [tokenizer.encode(text) for text in texts]
    config = json.loads((directory / "config.json").read_text())
    tensors = load_file(directory / "model.safetensors")
    return reference_ladder.diagnose(tensors, config, [(line.ids, line.type_ids) for line in encoded])


def frozen_diagnosis() -> dict[str, dict]:
    """The committed numbers, in the same form."""
    found: dict[str, dict] = {}
    with np.load(FILE) as stored:
        for key in stored.files:
            name, field = key.split(".")
            found.setdefault(name, {})[field] = stored[key]
    return found


def main() -> None:
    texts = json.loads((FROZEN / "minilm-l6.json").read_text(encoding="utf-8"))["texts"]
    measured = minilm_diagnosis(Path(sys.argv[1]), texts)
    flat = {f"{name}.{field}": values for name, spread in measured.items() for field, values in spread.items()}
    with open(FILE.with_suffix(".part"), "wb") as aside:
        np.savez_compressed(aside, **flat)
    os.replace(FILE.with_suffix(".part"), FILE)


if __name__ == "__main__":
    main()
