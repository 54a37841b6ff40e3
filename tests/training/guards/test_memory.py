"""The estimate of a step's memory against the compiler's plan, and the rematerialisation that is chosen by it."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from support.training import PLAIN, TASKS, make_trainer

import jaxsmooth
from jaxsmooth.errors import ConfigError
from jaxsmooth.training.guards.memory import Need, abstract_batch, choose_remat, estimate
from jaxsmooth.training.model import init_task_model
from jaxsmooth.training.step import compile_step, init_state

SHAPE = jaxsmooth.EncoderConfig(vocab=64, width=32, layers=3, heads=4, mlp_width=64, max_length=128)
DROPPED = dataclasses.replace(PLAIN, hidden_dropout=0.1, attention_dropout=0.1, prng="rbg")
GIB = 2**30


def estimated_and_planned(kind, rows, length, *, remats=("none", "dots", "full"), **settings):
    """Bytes beside the state, by our estimate and by XLA for CPUs."""

    def init():
        encoder = jaxsmooth.init_encoder(SHAPE, jax.random.key(0), dtype=jnp.float32)
        return init_task_model(encoder, TASKS[kind], jax.random.key(1))

    model, config = jax.eval_shape(init), dataclasses.replace(DROPPED, batch_size=rows, **settings)
    gradients = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(model))
    for need in estimate(make_trainer(kind, model, config), model, rows, length, state=gradients, devices=1):
        if need.remat in remats:
            trainer = make_trainer(kind, model, dataclasses.replace(config, remat=need.remat))
            state = jax.eval_shape(lambda m, t=trainer: init_state(m, t.optimiser, t.config), model)
            step = compile_step(trainer).lower(state, abstract_batch(trainer.task, rows, length)).compile()
            yield need.total, step.memory_analysis().temp_size_in_bytes


@pytest.mark.long
def test_the_estimate_is_within_a_third_of_the_compilers_plan():
    for found, planned in estimated_and_planned("classification", 16, 64, remats=("none", "full")):
        assert 0.67 * planned < found < 1.5 * planned, (found, planned)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["masked_lm", "choice"])
@pytest.mark.parametrize(("rows", "length", "settings"), [(8, 128, {}), (16, 64, {"accumulate": 4})])
def test_the_estimate_over_tasks_and_shapes(kind, rows, length, settings):
    for found, planned in estimated_and_planned(kind, rows, length, **settings):
        assert 0.67 * planned < found < 1.5 * planned, (found, planned)


def needs(rows, length):
    """Half a GiB of state; attention alone counts."""
    size = rows * length**2 * 1000
    return [
        Need("none", GIB // 2, 20 * size, size),
        Need("dots", GIB // 2, 5 * size, 2 * size),
        Need("full", GIB // 2, size, 2 * size),
    ]


@pytest.mark.parametrize(
    ("rows", "chosen", "said"),
    [
        (32, "none", ""),
        (64, "dots", "--remat dots: without recomputation a step would need about"),
        (160, "full", "--remat full: without recomputation a step would need about"),
    ],
)
def test_the_least_recomputation_that_fits_is_chosen(rows, chosen, said):
    need, notice = choose_remat(needs, rows, 128, 12 * GIB)
    assert need.remat == chosen
    assert notice.startswith(said)
    assert bool(notice) == bool(said)
    assert choose_remat(needs, rows, 128, 0) == (needs(rows, 128)[0], "")  # a device that does not say


@pytest.mark.compatibility(
    "size",
    "`finetune` of a step that cannot fit",
    "refused before it is compiled; names a batch that would fit",
    was=4,
)
def test_what_fits_is_named_where_nothing_does():
    with pytest.raises(
        ConfigError, match=r"4096 records of 128 tokens needs at least 63 GiB of 12 GiB .*--batch-size 248 "
    ):
        choose_remat(needs, 4096, 128, 12 * GIB)
    with pytest.raises(ConfigError, match="--batch-size 1 with sentences of 1024 tokens"):
        choose_remat(needs, 2, 8192, 4 * GIB)
    with pytest.raises(ConfigError, match="Its state alone does not fit: cut it with --mesh fsdp=N"):
        choose_remat(needs, 2, 8192, GIB // 4)
