"""The proved rate of a neighbourhood: above every input of it that can be built, and next to the worst one."""

import dataclasses
import functools

import numpy as np
import pytest
from support.neighbourhoods import TOKENS, WIDTH, Setting, moved, rate_of
from support.statements import distance, record

from jaxsmooth.theory.rates.neighbourhood import Neighbourhood


def members(setting: Setting, rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Inputs of the neighbourhood: the observed one; of moved tokens, the nearest and others of larger stds."""
    made = [setting.x]
    for _ in range(count):
        tokens, more = moved(setting, rng), setting.least["std_attn"] * 10 ** rng.uniform(-3, 1, TOKENS)
        made += [setting.nearest(tokens), setting.nearest(tokens, more)]
    return [x for x in made if setting.holds(x)]


def search(seeds: range, size: float | None, count: int) -> tuple[np.ndarray, int]:
    """Per block, the largest actual rate met over the proved one; and how many inputs were met."""
    worst, met = [], 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        setting = Setting.random(seed, 10 ** rng.uniform(-3, -0.5) if size is None else size)
        bound = setting.rate().rate
        rates = np.array([setting.actual(x) for x in members(setting, rng, count)])
        record(rates, np.full_like(rates, bound), int(np.sum(rates > bound)))
        worst.append(rates.max() / bound)
        met += len(rates)
    return np.array(worst), met


@pytest.mark.parametrize(
    ("seeds", "count", "least"),
    [
        pytest.param(range(10), 90, 300, id="few"),
        pytest.param(range(1000, 3000), 120, 100_000, id="many", marks=pytest.mark.long),
    ],
)
def test_it_holds_on_the_inputs_of_the_neighbourhood(seeds, count, least):
    worst, met = search(seeds, None, count)
    assert met >= least
    assert worst.max() <= 1


@pytest.mark.parametrize("seed", range(40, 60))
def test_it_is_attained_as_the_box_closes(seed):
    """By the input nearest to consensus among those of the same normed tokens, as scipy finds it."""
    setting = Setting.random(seed, 1e-9)
    found = setting.rate()
    nearest = distance(setting.nearest(setting.run["normed"]))
    assert found.nearest <= nearest * (1 + 1e-9)
    assert found.farthest == pytest.approx(distance(setting.run["less_shift"]), rel=1e-6)
    assert found.nearest == pytest.approx(nearest, rel=1e-3)


@pytest.mark.parametrize("seed", range(60, 64))
def test_a_narrow_box_is_nearly_attained(seed):
    worst, _ = search(range(seed, seed + 1), 1e-3, 30)
    assert 0.9 < worst[0] <= 1


def test_it_fails_where_stds_may_be_smaller():
    """Without biases a tenth of an input has the same normed tokens and output: ten times the rate."""
    drawn = Setting.random(70, 1e-3)
    none = (np.zeros(WIDTH), *drawn.block.biases[1:])
    plain = dataclasses.replace(drawn, block=dataclasses.replace(drawn.block, biases=none, eps=0.0))
    run = plain.made(plain.x)
    setting = dataclasses.replace(
        plain, run=run, least={key: run[key][:, 0] for key in drawn.least}, radius=1e-3 * run["pre"].std(axis=0)
    )
    bound = setting.rate().rate
    assert setting.actual(setting.x) <= bound
    assert not setting.holds(setting.x / 10)
    assert setting.actual(setting.x / 10) > 2 * bound


def test_it_fails_outside_the_box():
    setting = Setting.random(71, 1e-3)
    bound = setting.rate().rate
    rng = np.random.default_rng(0)
    # Stds a little lower than those that `nearest` attains but for rounding.
    least = {key: (1 - 1e-9) * stds for key, stds in setting.least.items()}
    wide = dataclasses.replace(setting, radius=3e3 * setting.radius, least=least)
    found = [x for x in (setting.nearest(moved(wide, rng)) for _ in range(200)) if wide.holds(x)]
    assert not any(setting.holds(x) for x in found)
    assert max(setting.actual(x) for x in found) > 1.5 * bound


def test_a_wider_box_and_smaller_stds_cost():
    setting = Setting.random(72, 0.01)
    found = setting.rate()
    wider = setting.rate(radius=2 * setting.radius)
    assert found.farthest < wider.farthest
    assert found.nearest > wider.nearest
    smaller = setting.rate(std_attn=0.5 * setting.least["std_attn"])
    assert smaller.nearest == pytest.approx(0.5 * found.nearest, rel=0.05)
    assert setting.rate(radius=1e3 * setting.radius).rate == np.inf


def test_rows_of_attention_are_divided_by_their_sums():
    setting = Setting.random(73, 0.01)
    found, scaled = setting.rate(), setting.rate(attn=setting.attn * (1 + 1e-7))
    assert scaled.nearest <= found.nearest
    assert scaled.nearest == pytest.approx(found.nearest, rel=1e-5)


def test_what_it_does_not_cover_is_refused():
    setting = Setting.random(74, 0.01)
    block, replace = setting.block, functools.partial(dataclasses.replace, setting.block)
    near = Neighbourhood(setting.attn, setting.run["normed"], *setting.least.values(), setting.radius)
    gainless = block.scale_attn * (np.arange(WIDTH) > 0)
    few = {"up": block.up[:, :5], "down": block.down[:5], "biases": (*block.biases[:2], np.zeros(5), block.biases[3])}
    for changed, text in (
        (replace(activation="silu"), "activation must be 'gelu' for a certificate; got 'silu'"),
        (replace(scale_attn=gainless), "a gain of zero"),
        (replace(up=0 * block.up), "W_1 .6 11. must have full row rank"),
        (replace(**few), "W_1 .6 5. must have full row rank"),
        (replace(scale_attn=block.scale_attn * np.inf), "parameters must be finite"),
        (replace(eps=-0.1), "eps at least 0; eps is -0.1"),
    ):
        with pytest.raises(ValueError, match=text):
            rate_of(changed, near._replace(radius=near.radius[: changed.up.shape[1]]))
    for changed, text in (
        (near._replace(attn=0.3 * near.attn), "a sum is off by 0.7"),
        (near._replace(attn=near.attn - np.eye(TOKENS)), "the least weight is -"),
        (near._replace(normed=near.normed * np.nan), "normed must be finite"),
    ):
        with pytest.raises(ValueError, match=text):
            rate_of(block, changed)
    for field, text in (("radius", "radius must be positive; the least of it is 0.0"), ("std_mlp", "std_mlp must be")):
        with pytest.raises(ValueError, match=text):
            rate_of(block, near._replace(**{field: 0 * getattr(near, field)}))
    with pytest.raises(ValueError, match=r"must have shapes .* got \(\(2, 4, 4\), \(3, 6\)"):
        rate_of(block, near._replace(normed=near.normed[:3]))


def test_the_rate_scales_with_the_last_gain():
    setting = Setting.random(75, 1e-3)
    usual = setting.rate().rate
    for size in (1e-100, 1e100):
        scaled = dataclasses.replace(setting.block, scale_mlp=setting.block.scale_mlp * size)
        assert dataclasses.replace(setting, block=scaled).rate().rate == pytest.approx(usual * size, rel=1e-9)


@pytest.mark.parametrize("huge", ["up_bias", "bias_attn", "down", "down_bias", "scale_mlp"])
def test_what_overflows_proves_nothing(huge):
    setting = Setting.random(75, 1e-3)
    place = {"bias_attn": 1, "up_bias": 2, "down_bias": 3}.get(huge)
    if place is None:
        changes = {huge: getattr(setting.block, huge) * 1e250}
    else:
        changes = {"biases": tuple(b * 1e250 if k == place else b for k, b in enumerate(setting.block.biases))}
    found = dataclasses.replace(setting, block=dataclasses.replace(setting.block, **changes)).rate()
    assert found.rate == np.inf or found.rate > 1e200


@pytest.mark.parametrize("condition", [1e3, 1e6])
def test_an_ill_conditioned_first_layer_is_no_obstacle(condition):
    setting = Setting.random(76, 1e-3)
    u, s, v = np.linalg.svd(setting.block.up, full_matrices=False)
    up = (u * np.geomspace(1, 1 / condition, len(s))) @ v
    near = Neighbourhood(setting.attn, setting.run["normed"], *setting.least.values(), setting.radius / condition)
    assert rate_of(dataclasses.replace(setting.block, up=up), near).nearest > 0
