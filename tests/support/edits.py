"""A block written out in numpy, an edit at each of its sites."""

from collections.abc import Callable

import numpy as np
import scipy.special

from support import reference
from support.models import CONFIG


def edited_block(w: reference.Weights, layer: int, x: np.ndarray, edit: Callable) -> dict[str, np.ndarray]:
    """One block of one unpadded sentence, `edit(site, value)` applied at all its sites."""
    heads = [w.head_columns(head) for head in range(w.heads)]
    query, key, value = (
        edit(site, np.stack([(x @ kernel + bias)[:, h] for h in heads]))
        for site in ("query", "key", "value")
        for kernel, bias in [w.affine(layer, f"attention.self.{site}")]
    )
    logits = edit("attn_logits", query @ key.swapaxes(1, 2) / np.sqrt(heads[0].stop))
    attn = edit("attn", scipy.special.softmax(logits, axis=-1))
    context = edit("context", attn @ value)
    wo, bo = w.affine(layer, "attention.output.dense")
    mixed = edit("mixed", sum(c @ wo[h] for c, h in zip(context, heads, strict=True)) + bo)
    stem = f"encoder.layer.{layer}."
    gain, shift = w.norm(stem + "attention.output.LayerNorm")
    y, std_attn = edited_norm(edit("pre_attn", x + mixed), "attn", gain, shift, edit)
    (w1, b1), (w2, b2) = w.affine(layer, "intermediate.dense"), w.affine(layer, "output.dense")
    gain, shift = w.norm(stem + "output.LayerNorm")
    z = edit("pre_mlp", y + edit("mlp", reference.gelu(edit("normed", y) @ w1 + b1) @ w2 + b2))
    out, std_mlp = edited_norm(z, "mlp", gain, shift, edit)
    return {"attn": attn, "std_attn": std_attn, "std_mlp": std_mlp, "hidden": edit("hidden", out)}


def edited_blocks(w: reference.Weights, x: np.ndarray, edit: Callable) -> dict[str, np.ndarray]:
    """All blocks of one unpadded sentence with `edit(layer, site, value)`, every quantity stacked over layers."""
    kept = []
    for layer in range(w.layers):
        kept.append(edited_block(w, layer, x, lambda site, value, layer=layer: edit(layer, site, value)))
        x = kept[-1]["hidden"]
    return {name: np.stack([values[name] for values in kept]) for name in kept[0]}


def edited_norm(x: np.ndarray, which: str, gain, shift, edit: Callable) -> tuple[np.ndarray, np.ndarray]:
    std = edit(f"std_{which}", np.sqrt(x.var(axis=1, keepdims=True) + CONFIG.eps))
    return edit(f"scale_{which}", gain) * (x - x.mean(axis=1, keepdims=True)) / std + shift, std


SHAPES = {
    **dict.fromkeys(("embedded", "mixed", "pre_attn", "normed", "mlp", "pre_mlp", "hidden"), (2, 8, 12)),
    **dict.fromkeys(("query", "key", "value", "context"), (2, 3, 8, 4)),
    **dict.fromkeys(("attn_logits", "attn"), (2, 3, 8, 8)),
    **dict.fromkeys(("std_attn", "std_mlp"), (2, 8, 1)),
    **dict.fromkeys(("scale_attn", "scale_mlp"), (12,)),
}
