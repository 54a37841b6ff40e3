"""The experiments on collapse and on the power method, at tiny sizes, against plain numpy."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from support.experiments import load

import jaxsmooth
from experiments.neighbours import power_method
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.theory.literature.power_method import li2026_steered_weight

collapse_speed = load("collapse_speed")


def written(folder: Path, name: str) -> dict:
    """The JSON, after the figure and the page were found and are not empty."""
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert f"]({name}.png)" in page
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


# Speed of collapse


@pytest.fixture(scope="module")
def speed(tmp_path_factory) -> tuple[object, dict]:
    args = collapse_speed.Args(
        tokens=5, width=8, heads=2, mlp_width=6, depth=8, trials=4, starts=60, settle=150,
        out=tmp_path_factory.mktemp("collapse"),
    )  # fmt: skip
    collapse_speed.main(args)
    return args, written(args.out, "collapse_speed")


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


def plain_distances(network: tuple, trial: int, parts: tuple[bool, bool, bool]) -> list[float]:
    """d_M / ||H|| after every layer from the definitions, tokens as they are."""
    residual, with_mlp, with_norm = parts
    query_key, value, up, down, hidden = (np.asarray(a)[trial] for a in network)
    x, found = hidden, []

    def after(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        y = x + y if residual else y
        return layer_norm(y) if with_norm else y

    for layer in range(len(value)):
        found.append(np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x))
        heads = zip(query_key[layer], value[layer], strict=True)
        x = after(x, sum(scipy.special.softmax(x @ b @ x.T, axis=1) @ x @ w for b, w in heads))
        x = after(x, np.maximum(x @ up[layer], 0) @ down[layer]) if with_mlp else x
    return [*found, np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x)]


def test_distances_are_those_of_a_plain_forward_pass(speed):
    args, result = speed
    network = collapse_speed.draw(args)
    compared = 0
    for name, parts in collapse_speed.VARIANTS.items():
        plain = np.array([plain_distances(network, trial, parts) for trial in range(args.trials)])
        for key, reduce in (("median", np.median), ("min", np.min), ("max", np.max)):
            for layer, found in enumerate(result["variants"][name][key]):
                # The plain pass loses what lies below the rounding of the tokens.
                if plain[:, layer].min() > 1e-7:
                    assert found == pytest.approx(reduce(plain[:, layer]), rel=1e-6), (name, key, layer)
                    compared += 1
    assert compared > 100


def test_without_a_residual_the_order_is_three(speed):
    _, result = speed
    for name, (residual, _, _) in collapse_speed.VARIANTS.items():
        found = result["variants"][name]
        if residual:
            assert found["median"][-1] > 1e-6
        else:
            assert found["order"] == pytest.approx(3, abs=0.1)
            assert found["share_below_1e-6"] == 1


def test_the_cubic_bound_is_never_passed(speed):
    _, result = speed
    assert result["cubic_bound"]["comparisons"] >= 4 * 3
    assert result["cubic_bound"]["violations"] == 0
    assert result["cubic_bound"]["median_slack"] >= 1


def test_where_layer_norm_cases_end(speed):
    args, result = speed
    shares = result["layer_norm"]
    assert shares["identity values, random starts"]["cosine_plus_one"] == 1
    free = shares["equilibrium, random starts"]
    assert free["cosine_plus_one"] + free["cosine_minus_one"] == pytest.approx(1, abs=0.05)
    assert free["error"] == pytest.approx(
        np.sqrt(free["cosine_plus_one"] * (1 - free["cosine_plus_one"]) / args.starts)
    )
    assert shares["antipodal pair, noise 0.5"]["cosine_minus_one"] > 0.9
    curve = result["curves"]["equilibrium, exactly"]
    assert np.abs(curve[:20]).max() < 1e-10
    # One layer of the moved equilibrium by hand.
    moved = result["curves"]["equilibrium, moved by 1e-3"]
    assert abs(moved[-1]) > 0.99 > 0.1 > abs(moved[1])


def test_a_distance_that_is_not_finite_is_an_error():
    with pytest.raises(FloatingPointError, match="not finite"):
        collapse_speed.summarise(np.array([[1.0, np.nan]]))


# Power method


@pytest.fixture(scope="module")
def power(tmp_path_factory) -> tuple[object, dict]:
    args = power_method.Args(
        model="tiny", data="tiny", limit=4, steps=5, gains=(0.0, 3.0), directions=2,
        out=tmp_path_factory.mktemp("power"),
    )  # fmt: skip
    power_method.main(args)
    return args, written(args.out, "power_method")


@pytest.fixture(scope="module")
def tiny() -> tuple[jaxsmooth.Encoder, jaxsmooth.Batch]:
    model, tokenizer = jaxsmooth.load("tiny")
    return model, tokenizer(read_texts("tiny", 4))


def numpy_products(model: jaxsmooth.Encoder) -> np.ndarray:
    value, output = (np.asarray(getattr(model.blocks.attn, n).kernel, np.float64) for n in ("value", "output"))
    return np.stack([[value[l, :, h] @ output[l, h] for h in range(value.shape[2])] for l in range(len(value))])


def share_along(x: np.ndarray, frame: np.ndarray) -> float:
    return float(np.mean(np.linalg.norm(x @ frame.T, axis=1) / np.linalg.norm(x, axis=1)))


def left_plane(weight: np.ndarray) -> tuple[np.ndarray, complex]:
    """The left eigenvector of largest modulus, or its plane, by scipy's own left eigenvectors."""
    values, left = scipy.linalg.eig(weight, left=True, right=False)
    best = np.argmax(np.abs(values))
    plane = np.stack([left[:, best].real, left[:, best].imag])
    return scipy.linalg.orth(plane.T, rcond=1e-8).T, complex(values[best])


def test_eigenvalues_and_alignments_of_the_real_states(power, tiny):
    _, result = power
    model, batch = tiny
    mask = np.asarray(batch.mask)
    weights = numpy_products(model).sum(axis=1)
    start = np.asarray(jaxsmooth.embed(model, batch), np.float64)[mask]
    output = np.asarray(jaxsmooth.encode(model, batch)[0], np.float64)[mask]
    for layer, weight in enumerate(weights):
        frame, value = left_plane(weight)
        assert abs(complex(*result["eigenvalues"][layer])) == pytest.approx(abs(value), rel=1e-9)
        np.testing.assert_allclose(result["tilt"]["before"][0][layer], share_along(start, frame), rtol=1e-4)
        np.testing.assert_allclose(result["tilt"]["block_output"][-1][layer], share_along(output, frame), rtol=1e-4)


def test_the_runs_without_mlp_against_numpy(power, tiny):
    """Layer 0's weights repeated, every sentence by itself and unpadded."""
    args, result = power
    model, batch = tiny
    attn, products = model.blocks.attn, numpy_products(model)[0]
    query, key = (
        (np.asarray(p.kernel[0], np.float64), np.asarray(p.bias[0], np.float64)) for p in (attn.query, attn.key)
    )
    states = []
    for x, real in zip(np.asarray(jaxsmooth.embed(model, batch), np.float64), np.asarray(batch.mask), strict=True):
        y = x[real] / np.linalg.norm(x[real], axis=1, keepdims=True)
        for _ in range(args.steps):
            wide, mixed = y * np.sqrt(y.shape[1]), 0.0
            for h, product in enumerate(products):
                q, k = (wide @ kernel[:, h] + bias[h] for kernel, bias in (query, key))
                mixed = mixed + scipy.special.softmax(q @ k.T / np.sqrt(q.shape[1]), axis=1) @ y @ product
            y = (y + mixed) / np.linalg.norm(y + mixed, axis=1, keepdims=True)
        states.append(y)
    end = np.concatenate(states)
    whole = products.sum(axis=0)
    assert result["shared"][0][-1] == pytest.approx(share_along(end, left_plane(whole)[0]), rel=1e-4)
    tilted = left_plane(np.eye(len(whole)) + whole)[0]
    assert result["shared_with_residual"][0][-1] == pytest.approx(share_along(end, tilted), rel=1e-4)


def test_the_steered_encoder_has_the_steered_matrix(power, tiny):
    """Its sum of head products is the theory's F', and tokens turn to the wish as the eigenvalue grows."""
    _, result = power
    model, _ = tiny
    wish = np.random.default_rng(0).standard_normal(model.config.width)
    eigenvalues = np.linspace(1.0, 2.0, model.config.layers)
    found = numpy_products(power_method.steered(model, wish, eigenvalues)).sum(axis=1)
    for before, after, eigenvalue in zip(numpy_products(model).sum(axis=1), found, eigenvalues, strict=True):
        expected = li2026_steered_weight(jnp.asarray(before), jnp.asarray(wish), jnp.asarray(eigenvalue))
        np.testing.assert_allclose(after, expected, atol=1e-5)
    ends = np.array(result["steer"]["alignment"])[:, :, -1].mean(axis=1)
    assert ends[1] > ends[0]
    norms = [np.linalg.norm(weight, 2) for weight in numpy_products(model).sum(axis=1)]
    np.testing.assert_allclose(result["steer"]["norm_of_F"], norms, rtol=1e-9)
