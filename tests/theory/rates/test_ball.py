"""Open neighbourhoods and balls of inputs: above every input that can be built, attention moved or recomputed."""

import dataclasses

import numpy as np
import pytest
from scipy.special import softmax
from support.neighbourhoods import HEADS, TOKENS, WIDTH, Setting, moved
from support.statements import distance, record

from jaxsmooth.linalg.intervals import Ball
from jaxsmooth.theory import Neighbourhood, ball_rate, block_of, inner_radius, neighbourhood_rate
from jaxsmooth.theory.rates.moved_attention import best_turn, largest_turn
from jaxsmooth.theory.rates.reach import centre_of
from jaxsmooth.types import Block, Linear


def toward(setting: Setting, x: np.ndarray, length: float) -> np.ndarray:
    """Attention whose rows move by `length` so that, to first order, the input of these U comes nearer to consensus."""
    z = (setting.unmix.T @ (x - x.mean(axis=0)).ravel()).reshape(TOKENS, WIDTH)
    found = []
    for head, attn in enumerate(setting.attn):
        step = z @ (setting.block.value[:, head] @ setting.block.output[head]).T @ x.T
        step -= step.mean(axis=1, keepdims=True)
        step *= length / np.linalg.norm(step, axis=1, keepdims=True)
        # No weight may fall below 0: a shorter move in rows where one would.
        room = np.min(np.where(step < 0, -attn / np.where(step < 0, step, 1), np.inf), axis=1, keepdims=True)
        found.append(attn + np.minimum(room, 1) * step)
    return np.array(found)


def attacked(setting: Setting, rng: np.random.Generator, length: float, count: int) -> list[float]:
    """Actual rates of inputs whose attention is at most `length` from the setting's, at random or against the bound."""
    rates = []
    for turn in range(count):
        tokens = moved(setting, rng) if turn else setting.run["normed"]
        other = setting
        for _ in range(4 if turn % 2 == 0 else 1):
            x = other.nearest(tokens)
            attn = toward(other, x, length) - other.attn + setting.attn
            if turn % 2:
                attn = setting.attn + rng.uniform(-1, 1) * (attn - setting.attn)
            off = attn - setting.attn
            far = np.linalg.norm(off, axis=-1, keepdims=True)
            attn = np.maximum(setting.attn + off * np.minimum(1, length / np.maximum(far, 1e-300)), 0)
            other = dataclasses.replace(setting, attn=attn / attn.sum(axis=-1, keepdims=True))
            off = np.linalg.norm(other.attn - setting.attn, axis=-1).max()
            x = other.nearest(tokens)
            if off <= length * (1 + 1e-12) and dataclasses.replace(other, least=lowered(setting)).holds(x):
                rates.append(other.actual(x))
    return rates


def lowered(setting: Setting) -> dict[str, np.ndarray]:
    """Stds that `nearest`, which attains the setting's but for rounding, is above."""
    return {key: (1 - 1e-9) * stds for key, stds in setting.least.items()}


@pytest.mark.parametrize("seed", range(300, 312))
def test_it_holds_where_attention_moves(seed):
    rng = np.random.default_rng(seed)
    setting, length = Setting.random(seed, 10 ** rng.uniform(-3, -1)), 10 ** rng.uniform(-3, -1)
    bound = setting.rate(attn_move=length * (1 + 1e-9), **lowered(setting)).rate
    rates = np.array(attacked(setting, rng, length, 12))
    record(rates, np.full_like(rates, bound), int(np.sum(rates > bound)))
    assert len(rates) >= 3
    assert rates.max() <= bound


@pytest.mark.long
def test_the_cost_of_moving_attention_is_nearly_attained_and_needed():
    """In a narrow box what is left is attention's: an attack gets a part of it, and passes a shorter move's bound."""
    shares, passed = [], 0
    for seed in range(320, 332):
        setting, rng = Setting.random(seed, 1e-6), np.random.default_rng(seed)
        fixed, bound = setting.rate().rate, setting.rate(attn_move=0.02).rate
        worst = max(attacked(setting, rng, 0.02, 3))
        shares.append((worst - fixed) / (bound - fixed))
        passed += worst > setting.rate(attn_move=0.002).rate
    assert np.median(shares) > 0.3
    assert max(shares) <= 1
    assert passed >= 6


def test_without_a_move_it_is_the_number_of_fixed_attention():
    setting = Setting.random(340, 0.01)
    fixed, none = setting.rate(), setting.rate(attn_move=np.zeros((HEADS, TOKENS)))
    assert fixed == none
    wider = [setting.rate(attn_move=move) for move in (1e-12, 1e-3, 1e-2)]
    assert fixed.rate <= wider[0].rate < wider[1].rate < wider[2].rate
    assert wider[0].rate == pytest.approx(fixed.rate, rel=1e-9)
    one = np.zeros((HEADS, TOKENS))
    one[0, 1] = 1e-2
    assert fixed.nearest > setting.rate(attn_move=one).nearest > wider[2].nearest
    for bad in (-1e-3, np.zeros(TOKENS), np.nan):
        with pytest.raises(ValueError, match=r"attn_move must be"):
            setting.rate(attn_move=bad)


def test_the_largest_turn_of_vectors_is_enclosed():
    """Between what rows of length 1 reach, found here by ascent, and the sum of lengths, which is for parallel ones."""
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.3, 1.0):
        v = rng.standard_normal(5) + spread * rng.standard_normal((24, 5)) * 3
        bound, lengths = largest_turn(Ball.exact(v), 12), np.linalg.norm(v, axis=1)
        rows = rng.standard_normal((24, 12))
        for _ in range(300):
            rows = v @ (v.T @ rows)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        reached = np.linalg.norm(rows.T @ v)
        assert reached <= bound <= min(1.001 * reached, lengths.sum() * (1 + 1e-12))
        own = best_turn(v, 12).rows
        assert np.linalg.norm(own.sum(axis=1)) < 1e-12
        assert np.linalg.norm(own.T @ v) <= bound
    assert bound < 0.9 * lengths.sum()


@dataclasses.dataclass(frozen=True)
class Scored:
    """A block that computes its attention, in numpy."""

    setting: Setting
    query: np.ndarray
    key: np.ndarray
    biases: tuple[np.ndarray, np.ndarray]

    @staticmethod
    def random(seed: int, sharp: float = 1.0) -> "Scored":
        rng = np.random.default_rng(seed)
        shape = (WIDTH, HEADS, 3)
        query, key = sharp * rng.standard_normal(shape), rng.standard_normal(shape)
        biases = rng.standard_normal((HEADS, 3)), rng.standard_normal((HEADS, 3))
        return Scored(Setting.random(seed, 0.01), query, key, biases)

    @property
    def block(self) -> Block:
        own, (q, k) = self.setting.block, self.biases
        b_attn, b_norm, b_up, b_down = own.biases
        block = block_of(*own.weights, output_bias=b_attn, bias_attn=b_norm, up_bias=b_up, down_bias=b_down)
        attn = dataclasses.replace(
            block.attn, query=Linear(kernel=self.query, bias=q), key=Linear(kernel=self.key, bias=k)
        )
        return dataclasses.replace(block, attn=attn)

    def attention(self, x: np.ndarray) -> np.ndarray:
        query, key = (
            np.einsum("td,dnh->nth", x, part) + bias[:, None]
            for part, bias in zip((self.query, self.key), self.biases, strict=True)
        )
        return softmax(np.einsum("nth,nsh->nts", query, key) / np.sqrt(3), axis=-1)

    def made(self, x: np.ndarray) -> dict[str, np.ndarray]:
        attn = self.attention(x)
        return {"attn": attn, **dataclasses.replace(self.setting, attn=attn).made(x)}

    def ball(self, radius: float, **changes):
        given = {"hidden": self.setting.x, "radius": radius, "activation": "gelu", "eps": self.setting.block.eps}
        return ball_rate(self.block, **given | changes)

    def steepest(self, rng: np.random.Generator, radius: float, sign: float = 1.0) -> np.ndarray:
        """From a random input of the ball's sphere, a few steps up the rate's slope, by differences."""
        x, step = self.setting.x, rng.standard_normal((TOKENS, WIDTH))
        for _ in range(3):
            step *= radius / np.linalg.norm(step, axis=1, keepdims=True)
            slope = np.zeros_like(step)
            for place in np.ndindex(*step.shape):
                moved = x + step
                moved[place] += 1e-3 * radius
                slope[place] = self.actual(moved) - self.actual(x + step)
            step = sign * slope
        return x + step * radius / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-300) * (1 - 1e-12)

    def actual(self, x: np.ndarray) -> float:
        return distance(self.made(x)["less_shift"]) / distance(x)


@pytest.mark.parametrize("seed", range(400, 410))
def test_a_ball_holds_on_its_inputs(seed):
    rng = np.random.default_rng(seed)
    scored, radius = Scored.random(seed, rng.choice([0.3, 1, 4])), 10 ** rng.uniform(-4, -2)
    found, centre = scored.ball(radius), scored.made(scored.setting.x)
    inputs = [scored.steepest(rng, radius) for _ in range(2)]
    for _ in range(60):
        step = rng.standard_normal((TOKENS, WIDTH))
        inputs.append(scored.setting.x + radius * step / np.linalg.norm(step, axis=1, keepdims=True))
    for x in inputs:
        run = scored.made(x)
        assert scored.actual(x) <= found.rate
        assert distance(run["less_shift"]) <= found.farthest
        assert distance(x) >= found.nearest
        # Attention, stds and pre-activations are where the ball was said to take them.
        assert np.all(np.linalg.norm(run["attn"] - centre["attn"], axis=-1) <= found.near.attn_move)
        assert np.all(run["std_attn"][:, 0] >= found.near.std_attn)
        assert np.all(np.abs(run["pre"] - centre["pre"]) <= found.near.radius)


def test_a_small_ball_has_the_actual_rate_and_a_large_one_costs():
    scored = Scored.random(420)
    actual = scored.actual(scored.setting.x)
    rates = [scored.ball(radius).rate for radius in (0.0, 1e-9, 1e-4, 1e-3, 10.0)]
    assert rates[0] == pytest.approx(actual, rel=1e-6)
    assert actual <= rates[0] <= rates[1] <= rates[2] <= rates[3] < rates[4] == np.inf


def test_the_reach_is_next_to_the_slope_of_what_it_bounds():
    """For a small radius the largest move of a pre-activation is a sum of slopes, taken here by differences."""
    scored, radius = Scored.random(421), 1e-6
    x = scored.setting.x
    slopes = np.zeros((TOKENS, WIDTH, TOKENS, len(scored.setting.radius)))
    for place in np.ndindex(TOKENS, WIDTH):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * 1e-5
            ends.append(scored.made(moved)["pre"])
        slopes[place] = (ends[0] - ends[1]) / 2e-5
    largest = np.linalg.norm(slopes, axis=1).sum(axis=0)
    reach = centre_of(scored.block, x, scored.setting.block.eps).reach(radius)
    ratio = reach.pre_move / (radius * largest)
    assert np.all(ratio > 1 - 1e-4)
    assert np.median(ratio) < 6


def test_the_inner_ball_is_inside_and_a_larger_one_is_not():
    scored = Scored.random(422)
    x, eps = scored.setting.x, scored.setting.block.eps
    run, rng = scored.made(x), np.random.default_rng(0)
    stds = (0.9 * run[key][:, 0] for key in ("std_attn", "std_mlp"))
    near = Neighbourhood(run["attn"], run["normed"], *stds, 0.1 * run["pre"].std(axis=0), 0.05)
    radius = inner_radius(scored.block, x, near, eps)
    assert radius > 0

    def inside(x: np.ndarray) -> bool:
        made = scored.made(x)
        return bool(
            np.all(np.linalg.norm(made["attn"] - near.attn, axis=-1) <= 0.05)
            and np.all(np.abs(made["pre"] - run["pre"]) <= near.radius)
            and np.all(made["std_attn"][:, 0] >= near.std_attn)
            and np.all(made["std_mlp"][:, 0] >= near.std_mlp)
        )

    steps = rng.standard_normal((200, TOKENS, WIDTH))
    steps /= np.linalg.norm(steps, axis=2, keepdims=True)
    assert all(inside(x + radius * step) for step in steps)
    assert not all(inside(x + 30 * radius * step) for step in steps)
    assert inner_radius(scored.block, x, near._replace(attn_move=0.0), eps) == 0
    # The rate of the neighbourhood is one of its inner ball.
    bound = neighbourhood_rate(scored.block, near, "gelu", eps).rate
    assert max(scored.actual(x + radius * step) for step in steps) <= bound


def test_a_ball_does_not_hold_beyond_its_radius():
    scored = Scored.random(423)
    bound, rng = scored.ball(1e-4).rate, np.random.default_rng(0)
    assert max(scored.actual(scored.steepest(rng, 1e-1)) for _ in range(4)) > bound


def test_padding_changes_nothing():
    scored = Scored.random(424)
    mask = np.array([True, False, True, True, False, True])
    padded = np.full((6, WIDTH), 1e6)
    padded[mask] = scored.setting.x
    assert scored.ball(1e-3, hidden=padded, mask=mask).rate == scored.ball(1e-3).rate


def test_what_is_no_ball_is_refused():
    scored = Scored.random(424)
    x = scored.setting.x
    for changes, text in (
        ({"radius": -1.0}, "radius must be a finite number of at least 0; got -1.0"),
        ({"hidden": x[:, :5]}, r"hidden must have shape \(T, 6\)"),
        ({"mask": np.zeros(TOKENS, bool)}, "0 of it real"),
        ({"hidden": x * np.nan}, "hidden must be finite"),
        ({"activation": "relu"}, "activation must be 'gelu'"),
    ):
        with pytest.raises(ValueError, match=text):
            scored.ball(**{"radius": 1e-3} | changes)
