"""One training step: parts of a batch, recomputation, precision, averages, fusion and remedies."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.training import PLAIN, QUICK, SMALL, TASKS, compiled, make_trainer, small_batch, small_model, to_arrays

import jaxsmooth
from jaxsmooth.bert.fusion import FUSIONS, fuse
from jaxsmooth.mitigations import parse_remedies
from jaxsmooth.training.guards.memory import abstract_batch
from jaxsmooth.training.model import task_logits
from jaxsmooth.training.probe import Probe
from jaxsmooth.training.step import compile_step, init_state
from jaxsmooth.types import Edits


def gradients(trainer, model, data, key=None):
    return compiled(trainer.gradients)(model, data, key)


@pytest.mark.parametrize("kind", ["classification", "masked_lm"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(kind):
    model, data = small_model(kind), small_batch(kind)
    whole = gradients(make_trainer(kind, model), model, data)
    parts = gradients(make_trainer(kind, model, dataclasses.replace(PLAIN, accumulate=2)), model, data)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_remat_changes_no_gradient():
    model, data = small_model("classification"), small_batch("classification")
    dropped = dataclasses.replace(PLAIN, hidden_dropout=0.1, attention_dropout=0.1)
    found = [
        gradients(
            make_trainer("classification", model, dataclasses.replace(dropped, remat=remat)),
            model,
            data,
            jax.random.key(0),
        )
        for remat in ("none", "full")
    ]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_the_compilers_effort_changes_no_step():
    model, data = small_model("classification"), small_batch("classification")
    after = []
    for effort in (0.0, -1.0):
        trainer = make_trainer("classification", model, dataclasses.replace(PLAIN, compile_effort=effort))
        state = init_state(jax.tree.map(jnp.copy, model), trainer.optimiser, trainer.config)
        after.append(compile_step(trainer, compiler_options=QUICK)(state, data)[0].model)
    for one, other in zip(*map(jax.tree.leaves, after), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


def test_training_learns_and_follows_its_average():
    config = dataclasses.replace(PLAIN, ema=0.5, layer_decay=0.9, hidden_dropout=0.1, warmup=0.1)
    model, data = small_model("classification", jnp.float32), small_batch("classification", dtype=np.float32)
    trainer = make_trainer("classification", model, config)
    step, state = (
        compile_step(trainer, compiler_options=QUICK),
        init_state(jax.tree.map(jnp.copy, model), trainer.optimiser, config),
    )
    losses, average = [], to_arrays(model)
    for _ in range(25):
        state, metrics = step(state, data)
        losses.append(float(metrics.loss))
        average = {name: 0.5 * average[name] + 0.5 * value for name, value in to_arrays(state.model).items()}
    assert losses[-1] < losses[0]
    assert int(state.step) == 25
    assert int(metrics.tokens) == int(data.batch.mask[:-1].sum())
    for name, value in to_arrays(state.ema).items():
        np.testing.assert_allclose(value, average[name], rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_masters():
    config = dataclasses.replace(PLAIN, precision="bfloat16")
    model, data = small_model("classification", jnp.float32), small_batch("classification", dtype=np.float32)
    trainer = make_trainer("classification", model, config)
    assert jax.eval_shape(trainer.logits, model, data).dtype == jnp.bfloat16
    loss, gradient = gradients(trainer, model, data)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((loss, gradient))} == {"float32"}
    exact, _ = gradients(make_trainer("classification", model), model, data)
    assert 0 < abs(float(loss) - float(exact)) < 0.05


@pytest.mark.parametrize(
    "fusion", [pytest.param(kind, marks=pytest.mark.long) if kind in ("concat", "max") else kind for kind in FUSIONS]
)
def test_fusion_is_trained(fusion):
    model, data = small_model("classification", fusion=fusion), small_batch("classification")
    loss, gradient = gradients(make_trainer("classification", model), model, data)
    plain = float(compiled(make_trainer("classification", model).loss)(dataclasses.replace(model, fusion=None), data))
    assert float(loss) != plain
    assert all(np.abs(np.asarray(leaf)).max() > 0 for leaf in jax.tree.leaves(gradient.fusion))


@pytest.mark.parametrize(
    ("settings", "fewer"),
    [
        ({}, 2),  # one there, one back
        ({"accumulate": 2}, 2),
        ({"share_attention": "3-5"}, 4),  # of six, so two go before the block that shares and two share
        ({"remat": "full"}, 0),  # blocks that are recomputed stay in their loop
    ],
)
def test_blocks_one_after_the_other_have_the_loop_s_gradient(settings, fewer):
    config = dataclasses.replace(PLAIN, hidden_dropout=0.1, attention_dropout=0.1, **settings)
    model, data, key = three_times_as_deep(), small_batch("classification"), jax.random.key(0)
    loop, unrolled = (make_trainer("classification", model, config, unroll=unroll) for unroll in (False, True))
    programs = [jax.jit(trainer.gradients).lower(model, data, key) for trainer in (loop, unrolled)]
    results = [program.compile(compiler_options=QUICK)(model, data, key) for program in programs]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12), *results)
    loops = [program.as_text().count("stablehlo.while") for program in programs]
    assert loops[0] - loops[1] == fewer


def three_times_as_deep():
    model = small_model("classification")
    blocks = jax.tree.map(lambda leaf: jnp.concatenate([leaf, 0.5 * leaf, 2 * leaf]), model.encoder.blocks)
    config = dataclasses.replace(SMALL, layers=3 * SMALL.layers)
    return dataclasses.replace(model, encoder=dataclasses.replace(model.encoder, config=config, blocks=blocks))


def test_layers_share_attention_in_training_and_in_evaluation():
    model, data = small_model("classification"), small_batch("classification")
    sharing = make_trainer("classification", model, dataclasses.replace(PLAIN, share_attention="1-2"))
    expected = task_logits(model, data.batch, edits=Edits(shared_attn=(0, 1)))
    np.testing.assert_allclose(sharing.logits(model, data), expected, rtol=1e-10, atol=1e-12)
    assert np.abs(np.asarray(expected - task_logits(model, data.batch))).max() > 1e-4
    _, gradient = gradients(sharing, model, data)
    first, second = np.abs(np.asarray(gradient.encoder.blocks.attn.query.kernel)).max(axis=(1, 2, 3))
    assert first > 0
    assert second == 0


def test_a_frozen_encoder_stays_as_it_is_to_the_last_bit():
    """Weight decay and Adam included; head, fusion and pooler learn."""
    config = dataclasses.replace(PLAIN, freeze=True, weight_decay=0.1, learning_rate=1e-2)
    model, data = small_model("classification", jnp.float32, fusion="weights"), small_batch("classification")
    trainer = make_trainer("classification", model, config, steps=4)
    before, state = to_arrays(model), init_state(model, trainer.optimiser, config)
    step = compile_step(trainer, compiler_options=QUICK)
    for _ in range(2):
        state, _ = step(state, data)
    moved = {name for name, value in to_arrays(state.model).items() if not np.array_equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("head.", "fusion.", "encoder.pooler."))}


def test_the_probe_says_how_much_each_layer_counts():
    data = small_batch("classification")
    for fusion in ("max", "weights", "gate"):
        model = small_model("classification", fusion=fusion)
        found = Probe(make_trainer("classification", model), data.batch).measure(model)
        assert ("probe/layer_importance" in found) == (fusion in ("weights", "gate"))
        assert len(found["probe/relative_distance"]) == 3
        if fusion == "weights":
            np.testing.assert_allclose(found["probe/layer_importance"], model.fusion.weight, rtol=1e-12)
        if fusion == "gate":
            _, hidden = jaxsmooth.encode(model.encoder, data.batch, collect=lambda trace: trace.hidden)
            share = np.asarray(fuse(model.fusion, hidden)[1])[:, np.asarray(data.batch.mask)].mean(axis=1)
            np.testing.assert_allclose(found["probe/layer_importance"], share, rtol=1e-12)


def test_a_remedy_acts_in_training_and_in_evaluation():
    (remedy,) = parse_remedies("contranorm:0.5")
    model, data = small_model("classification"), small_batch("classification")
    with_it = make_trainer("classification", model, remedy=remedy.edits)
    expected = task_logits(model, data.batch, edits=remedy.edits(model.encoder, data.batch))
    np.testing.assert_allclose(with_it.logits(model, data), expected, rtol=1e-10, atol=1e-12)
    plain = make_trainer("classification", model).logits(model, data)
    assert np.abs(np.asarray(expected - plain)).max() > 1e-4


def test_a_masked_lm_has_logits_where_it_is_asked_only():
    """No array of the step is as wide as the vocabulary at every token."""
    kind, rows, length = "masked_lm", 4, 16
    model = small_model(kind)
    program = jax.make_jaxpr(make_trainer(kind, model).gradients)(model, abstract_batch(TASKS[kind], rows, length))
    wide = [shape for shape in shapes(program.jaxpr) if shape[-1:] == (SMALL.vocab,) and len(shape) > 2]
    assert wide
    assert max(math.prod(shape[:-1]) for shape in wide) == rows * round(0.15 * length)


def shapes(jaxpr):
    """Of every array that a program makes, the programs inside it included."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda each: hasattr(each, "eqns")):
            program = getattr(inner, "jaxpr", inner)
            if hasattr(program, "eqns"):
                yield from shapes(program)
