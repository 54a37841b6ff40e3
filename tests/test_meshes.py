"""Results on a mesh are typed as docs/meshes.md says; numbers on eight devices are in studies/test_data_parallel.py."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from support import ROOT
from support.models import random_batch, random_model

import jaxsmooth
from jaxsmooth.meshes import on_any_mesh


@pytest.mark.scale
def test_the_example_of_the_documentation_runs(capsys):
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "meshes.md").read_text(encoding="utf-8"), re.DOTALL)
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        exec(compile(example, "meshes.md", "exec"), {})
    said = re.findall(r"  # (.*)", example)[-1]
    assert capsys.readouterr().out.strip() == said


@pytest.fixture(params=[AxisType.Explicit, AxisType.Auto], ids=str)
def mesh(request) -> jax.sharding.Mesh:
    return jax.make_mesh((1, 1), ("data", "model"), axis_types=(request.param,) * 2, devices=jax.devices()[:1])


def cut(mesh: jax.sharding.Mesh, leaf: jax.Array, *spec: str | None) -> jax.Array:
    return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*spec)))


def test_a_result_is_cut_like_the_leader_as_far_as_the_lengths_agree():
    mesh = jax.make_mesh((1, 1), ("data", "model"), devices=jax.devices()[:1])
    x = cut(mesh, jnp.ones((4, 3, 2)), "data", None, "model")
    found = on_any_mesh(lambda x: x, lead=(0, 1))(lambda x: (x[:, 0, 0], {"stacked": jnp.stack([x, x])}))(x)
    assert [str(jax.typeof(leaf)) for leaf in jax.tree.leaves(found)] == [
        "float64[4@data]",
        "float64[2,4@data,3,2@model]",
    ]
    other = on_any_mesh()(lambda x: x.T)(x)
    assert jax.typeof(other).sharding.spec == PartitionSpec(None, None, None)
    assert on_any_mesh()(lambda x: "no array")(x) == "no array"


def test_arrays_of_no_mesh_pass_untouched():
    seen = []
    on_any_mesh()(lambda x: seen.append(x))(x := jnp.ones(2))
    assert seen[0] is x


@pytest.mark.compatibility("mesh", "an edit that carries an array, on Explicit axes", "as on one device", was=2)
def test_edits_that_carry_arrays_and_numpy_batches_on_a_mesh(mesh):
    model, batch = random_model(), random_batch()
    there = jax.tree.map(lambda leaf: cut(mesh, leaf), model)
    factor = jax.tree_util.Partial(lambda factor, layer, value: factor * value, cut(mesh, jnp.float64(0.5)))
    expected = jaxsmooth.encode(model, batch, edits=jaxsmooth.Edits(mixed=lambda layer, value: 0.5 * value))[0]
    for fed in (jax.tree.map(lambda leaf: cut(mesh, leaf, "data"), batch), jax.tree.map(np.asarray, batch)):
        found = jaxsmooth.encode(there, fed, edits=jaxsmooth.Edits(mixed=factor))[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_encode_inside_a_shard_map(mesh):
    model, batch = random_model(), random_batch()

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"), check_vma=False)
    def own_rows(batch: jaxsmooth.Batch) -> jax.Array:
        return jaxsmooth.encode(model, batch)[0]

    there = jax.tree.map(lambda leaf: cut(mesh, leaf, "data"), batch)
    np.testing.assert_allclose(own_rows(there), jaxsmooth.encode(model, batch)[0], rtol=0, atol=1e-12)
