"""Norms and placements against an independent float64 implementation; what such models save and load."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.checkpoint import assert_same_bits
from support.models import random_batch, random_model
from support.reference_variants import Variant, forward, normed

import jaxsmooth
from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.checkpoints.config_json import config_from_dict, config_to_dict
from jaxsmooth.errors import ConfigError
from jaxsmooth.types import Edits

LAYERS = 3
SIZES = {"vocab": 30, "width": 8, "layers": LAYERS, "heads": 2, "mlp_width": 12, "max_length": 12, "eps": 1e-3}
VARIANTS: dict[str, dict] = {
    "post": {},
    "pre": {"placement": "pre", "final_norm": True, "activation": "silu"},
    "pre, first norm left out, gated": {"placement": "pre", "first_norm": False, "gated": True},
    "sandwich": {"placement": "sandwich"},
    "sandwich, RMS, no shifts": {"placement": "sandwich", "norm": "rmsnorm", "norm_bias": False},
    "DeepNorm": {"skip_scale": (2 * LAYERS) ** 0.25},
    "pre, RMS, depth-scaled": {"placement": "pre", "norm": "rmsnorm", "branch_scale": LAYERS**-0.5},
    "post, RMS, relu": {"norm": "rmsnorm", "activation": "relu"},
    "no norm": {"norm": "none", "placement": "pre", "embedding_norm": False, "branch_scale": LAYERS**-0.5},
    "no norm, post": {"norm": "none", "skip_scale": 0.5, "branch_scale": 0.25, "activation": "gelu_tanh"},
}


def config_of(name: str) -> EncoderConfig:
    return EncoderConfig(**{**SIZES, **VARIANTS[name]})


def layers_of(model: jaxsmooth.Encoder) -> list[dict[str, np.ndarray]]:
    """Each block's parameters in torch's layout, by short names."""
    d = model.config.width
    found = []
    for layer in range(LAYERS):
        block = jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer]), model.blocks)
        linears = {name: getattr(block.attn, name) for name in ("query", "key", "value", "output")}
        linears |= {name: getattr(block, name) for name in ("up", "down", "gate") if getattr(block, name) is not None}
        own = {}
        for name, linear in linears.items():
            rows = d if name in ("query", "key", "value", "output") else linear.kernel.shape[0]
            own[f"{name}.weight"] = linear.kernel.reshape(rows, -1).T
            own[f"{name}.bias"] = linear.bias.reshape(-1)
        for name in ("norm_attn", "norm_mlp", "norm_attn_out", "norm_mlp_out"):
            norm = getattr(block, name)
            if norm is not None:
                own |= {f"{name}.scale": norm.scale} | ({} if norm.bias is None else {f"{name}.bias": norm.bias})
        found.append(own)
    return found


def variant_of(config: EncoderConfig, given_std: float | None = None) -> Variant:
    return Variant(
        norm=config.norm,
        placement=config.placement,
        skip=config.skip_scale,
        branch=config.branch_scale,
        eps=config.eps,
        activation=config.activation,
        heads=config.heads,
        first_norm=config.first_norm,
        given_std=given_std,
    )


def embedded_of(model: jaxsmooth.Encoder, tokens: np.ndarray, segments: np.ndarray) -> np.ndarray:
    table = model.embeddings
    summed = np.asarray(table.word)[tokens] + np.asarray(table.position)[: len(tokens)]
    summed = summed + np.asarray(table.segment)[segments]
    if table.norm is None:
        return summed
    bias = None if table.norm.bias is None else np.asarray(table.norm.bias)
    return normed(variant_of(model.config), summed, np.asarray(table.norm.scale), bias, edited=False)


@pytest.mark.parametrize("given_std", [None, 1.7])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_block_is_what_its_formula_says(name, given_std):
    config = config_of(name)
    model = random_model(config, pooler=False)
    batch = random_batch((6, 3), 7, config=config)
    # A gated MLP without a gate's shape, or a norm without a bias, would not be the variant that is meant.
    assert (model.blocks.gate is not None) == config.gated
    assert (model.blocks.norm_attn_out is not None) == (config.placement == "sandwich")
    edits = Edits()
    if given_std is not None:
        edits = Edits(**dict.fromkeys(("std_attn", "std_mlp"), lambda layer, std: jnp.full_like(std, given_std)))
    last, trace = jaxsmooth.encode(model, batch, edits=edits)
    for row, length in enumerate(np.asarray(batch.mask.sum(axis=1))):
        tokens, segments = (np.asarray(x[row, :length]) for x in (batch.tokens, batch.segments))
        states = forward(embedded_of(model, tokens, segments), layers_of(model), variant_of(config, given_std))
        np.testing.assert_allclose(trace.hidden[:, row, :length], states[1:], rtol=1e-11, atol=1e-11)
        final = states[-1]
        if config.final_norm:
            norm = model.final_norm
            final = normed(variant_of(config), final, np.asarray(norm.scale), np.asarray(norm.bias), edited=False)
        np.testing.assert_allclose(last[row, :length], final, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_family_has_no_words_for_is_saved_and_loaded_all_the_same(name, tmp_path):
    config = config_of(name)
    model = random_model(config, pooler=False, dtype=jnp.float32)
    if not config.first_norm:  # a checkpoint does not hold the norm that nobody reads
        norm = model.blocks.norm_attn
        norm = dataclasses.replace(norm, scale=norm.scale.at[0].set(1.0), bias=norm.bias.at[0].set(0.0))
        model = dataclasses.replace(model, blocks=dataclasses.replace(model.blocks, norm_attn=norm))
    jaxsmooth.save(model, tmp_path)
    assert_same_bits(jaxsmooth.load(tmp_path)[0], model)
    written = json.loads((tmp_path / "config.json").read_text())
    own = {key: value for key, value in VARIANTS[name].items() if key != "activation"}
    assert written.get("jaxsmooth", {}) == own


@pytest.mark.parametrize("own", [[], {"depth": 3}, {"family": "gpt2"}, {"placement": "between"}, {"heads": 5}])
def test_fields_of_our_own_are_checked_like_all_others(own):
    written = config_to_dict(EncoderConfig(**SIZES))
    with pytest.raises(ConfigError):
        config_from_dict({**written, "jaxsmooth": own})


def test_which_blocks_the_ladder_speaks_of():
    plain = {name for name in VARIANTS if config_of(name).is_plain}
    assert plain == {"post"}
    assert config_of("sandwich, RMS, no shifts").departures == ("RMSNorm in place of LayerNorm", "sandwich-LN blocks")
    assert config_of("DeepNorm").departures == ("scaled residual sums",)
    assert config_of("pre, first norm left out, gated").departures == ("pre-LN blocks", "gated MLPs")
    assert config_of("no norm, post").departures == ("no normalisation", "scaled residual sums")


def test_unread_first_norm_has_no_gradient():
    model = random_model(config_of("pre, first norm left out, gated"), pooler=False)
    batch = random_batch((6, 3), 7, config=model.config)
    slope = jax.grad(lambda m: (jaxsmooth.encode(m, batch, collect=jaxsmooth.keep_nothing)[0] ** 2).sum())(model)
    assert not np.asarray(slope.blocks.norm_attn.scale[0]).any()
    assert np.isfinite(np.asarray(slope.blocks.norm_attn.scale)).all()
    assert np.asarray(slope.blocks.norm_attn.scale[1]).any()
