"""How far attention, stds and pre-activations of one block can be when every token may move by so much.

Attention is recomputed from the moved tokens. Every bound is of first order in the radius, with its rest, and linear
in what can be computed once; so many radii are cheap. Statement and proof: docs/rates.md, theorem 6. Host only,
float64, one sentence, no masked token.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...linalg.intervals import Ball, Interval, epsilon, gamma, quiet, raised, tiny
from ...linalg.norm_ball import NormBall, raise_all, size
from ...types import Attention, Block
from ..certify.float_calculus import HostCalculus
from ..certify.matrix_calculus import parts_of
from ..theorems.parameters import bias_of, heads_of

Array = NDArray[np.float64]


class Reach(NamedTuple):
    """Bounds for every input whose tokens are within the radius of the centre's.

    Attributes:
      attn_move: how far a row of attention is from the centre's, [N T].
      std_attn: what the stds at the attention LayerNorm are at least, [T].
      pre_move: how far a pre-activation is from the centre's, [T F].
    """

    attn_move: Array
    std_attn: Array
    pre_move: Array


@dataclasses.dataclass(frozen=True)
class Centre:
    """One input, enclosed from its tokens on, and what the bounds take from it.

    Attributes:
      attn: A_h, [N T T].
      normed: Y, [T D].
      stds: at the attention LayerNorm, [T].
      score: what one unit of length in a query and in a key's token can change a logit by, before a row is shifted,
        each over sqrt(H): [N T T] and [N T].
      scores: ||W_Q|| ||W_K|| / sqrt(H), [N].
      along: |(y_i - beta) . w_k|, at least, [T F].
      straight: sum_j |delta_ij g + sum_h a_hij W_h g|, at least, for g of every unit and of the token itself, [T F+1].
      values: x_j W_h g, [N T F+T].
      lengths: |W_h g|, at least, [N F+T].
      mixed: |(x_j - mean) W_h|, at least, [N T], and ||W_h||_F, [N].
    """

    attn: Ball
    normed: Ball
    stds: Interval
    score: tuple[Array, Array]
    scores: Array
    along: Array
    straight: Array
    values: Ball
    lengths: Array
    mixed: tuple[Array, Array]

    @quiet
    def reach(self, radius: float) -> Reach:
        """For one radius, Euclidean, of every token."""
        heads, tokens, _ = self.attn.mid.shape
        units = self.along.shape[1]
        entries, move = self._attention(radius)
        total = raise_all(entries.sum(axis=-1) * _above(tokens))
        turned = self._turned(entries) + np.einsum("hi,hk->ik", radius * total, self.lengths)
        straight = np.concatenate([radius * self.straight[:, :units], np.zeros((tokens, tokens))], axis=1)
        straight[:, units:][np.diag_indices(tokens)] = radius * self.straight[:, units]
        moved = raise_all((straight + turned) * _above(8 * heads))
        norms, frames = self.mixed
        far = radius * (1 + frames.sum()) + np.einsum("hij,hj->i", entries, norms)
        far = raise_all((far + radius * np.einsum("hi,h->i", total, frames)) * _above(heads * tokens + 8))
        least, change = self._stds(raise_all(np.diagonal(moved[:, units:])), far)
        pre = (moved[:, :units] + self.along * change[:, None]) / least[:, None]
        return Reach(move, least, raise_all(pre * _above(8)))

    def _attention(self, radius: float) -> tuple[Array, Array]:
        """How far every entry, and every row, of attention can be."""
        (by_query, by_key), p = self.score, np.maximum(self.attn.mid, tiny(self.attn.mid))
        step = radius * (by_query + by_key[..., None]) + radius**2 * self.scores[:, None, None]
        step = raise_all(step * _above(8))
        grown, shrunk = np.exp(step), np.exp(-step)
        # The sums over the other keys, without cancellation. At worst its own logit goes one way, all others the other.
        others = 1 - np.eye(p.shape[-1])
        high = p * grown / (p * grown + (p * shrunk) @ others)
        low = p * shrunk / (p * shrunk + (p * grown) @ others)
        off = np.max(self.attn.rad / p, axis=-1, keepdims=True) * 4 + 4 * gamma(p.shape[-1] + 40, p)
        far = np.maximum(high * (1 + off) - p * (1 - off), p * (1 + off) - low * (1 - off))
        far = np.minimum(raise_all(np.maximum(far, 0) + off * p), 1)
        return far, raise_all(np.sqrt((far * far).sum(axis=-1)) * _above(p.shape[-1]))

    def _turned(self, entries: Array) -> Array:
        """sum_h sum_j |change of a_hij| |x_j W_h g - m|, [T F+T]; any number m will do: here the mean by attention."""
        heads, tokens, _ = entries.shape
        found = np.zeros((tokens, self.values.mid.shape[-1]))
        for head in range(heads):
            mid, rad = self.values.mid[head], self.values.rad[head]
            means = self.attn.mid[head] @ mid
            for token in range(tokens):
                far = np.abs(mid - means[token]) * (1 + 4 * epsilon(mid)) + rad
                found[token] += entries[head, token] @ far
        return raise_all(found * _above(heads + tokens))

    def _stds(self, along: Array, far: Array) -> tuple[Array, Array]:
        """Least stds, and how far stds can be, where |u . du| <= `along` and |du| <= `far`."""
        width = self.normed.mid.shape[-1]
        square = self.stds.lower * self.stds.lower * (1 - 16 * epsilon(along))
        low = np.sqrt(np.maximum(square - 2 * along / width * (1 + 1e-14), 0)) * (1 - 1e-14)
        top = np.sqrt(self.stds.upper**2 + (2 * along + far * far) / width) * (1 + 1e-14)
        return low, raise_all(np.maximum(self.stds.upper - low, top - self.stds.lower) * (1 + 1e-14))


@quiet
def centre_of(block: Block, hidden: Array, eps: float) -> Centre:
    """Everything `Centre.reach` needs of a post-LN block and one sentence of real tokens, [T D]."""
    c = HostCalculus(np.ones(len(hidden), bool), np.float64)
    own, x = heads_of(block.attn), c.matrix(hidden)
    attn, score, scores = _scores(c, own, x)
    value, output = c.matrix(own.value.kernel), c.matrix(own.output.kernel)
    mixed = c.mix(attn, x, value, c.matrix(own.value.bias), output)
    total = c.add_row(c.add(x, mixed), c.matrix(bias_of(block.attn.output)[None]))
    stds = c.stds(total, eps)
    gains, shift = c.matrix(block.norm_attn.scale[None]), c.matrix(bias_of(block.norm_attn)[None])
    none = c.matrix(0 * gains.mid)
    normed = c.layer_norm(total, gains, shift, stds)
    units = c.scale_rows(c.matrix(block.up.kernel), Interval.exact(np.asarray(block.norm_attn.scale)))
    along = c.layer_norm(total, gains, none, stds) @ c.matrix(block.up.kernel)
    # C Gamma_1 w_k, and C u_i: columns.
    directions = c.concatenate([c.centre_features(units.T).T, c.centre_features(total).T])
    turned = value @ (output @ directions)
    values = (x @ value) @ (output @ directions)
    lengths = raise_all(np.sqrt(_squares(turned).sum(axis=1)) * _above(turned.mid.shape[1]))
    apart = c.centre_tokens(x)
    norms = raise_all(np.sqrt(_squares((apart @ value) @ output).sum(axis=-1)) * _above(len(block.up.kernel)))
    products = value @ output
    frames = np.array([size(w) for w in raise_all(np.abs(products.mid) + products.rad)])
    return Centre(
        attn=attn,
        normed=normed,
        stds=stds,
        score=score,
        scores=scores,
        along=raise_all(np.abs(along.mid) + along.rad),
        straight=_straight(attn, directions, turned, lengths, block.up.kernel.shape[1]),
        values=values,
        lengths=lengths,
        mixed=(norms, frames),
    )


def _scores(c: HostCalculus, own: Attention, x: Ball) -> tuple[Ball, tuple[Array, Array], Array]:
    """Attention, and what it takes to move its logits."""
    query, key = (x @ c.matrix(part.kernel) + c.matrix(part.bias) for part in (own.query, own.key))
    heads, _, size_of_head = query.mid.shape
    root = c.number(1.0) / c.number(float(size_of_head)).sqrt()
    logits, moves, keys, norms = [], [], [], []
    for head in range(heads):
        q, k = (Ball(part.mid[head], part.rad[head]) for part in (query, key))
        logits.append(c.softmax(c.scale(q @ k.T, root)))
        from_key = q @ c.matrix(own.key.kernel[head]).T
        keys.append(np.sqrt(_squares(from_key).sum(axis=-1)))
        from_query = k @ c.matrix(own.query.kernel[head]).T
        moves.append(_apart(from_query, logits[-1].mid))
        norms.append(math.prod(NormBall(np.asarray(part.kernel[head]), 0.0).norm() for part in (own.query, own.key)))
    attn = Ball(*(np.stack(part) for part in zip(*map(parts_of, logits), strict=True)))
    slack = float(root.upper) * _above(own.key.kernel.shape[1])
    return (
        attn,
        (raise_all(np.stack(moves) * slack), raise_all(np.stack(keys) * slack)),
        raise_all(np.array(norms) * slack),
    )


def _apart(rows: Ball, weights: Array) -> Array:
    """|row_j - sum_k weights_ik row_k|, at least but for the rounding of the sums, [T T]."""
    found = []
    for mean in weights @ rows.mid:
        far = np.abs(rows.mid - mean) * (1 + 4 * epsilon(mean)) + rows.rad
        found.append(np.sqrt((far * far).sum(axis=-1)))
    return np.array(found)


def _straight(attn: Ball, directions: Ball, turned: Ball, lengths: Array, units: int) -> Array:
    """sum_j |delta_ij g + sum_h a_hij W_h g|: for every unit's g, and for the token's own, [T F+1]."""
    heads, tokens, _ = attn.mid.shape
    parts = np.concatenate([directions.mid[None], turned.mid])
    gram = np.einsum("adk,bdk->kab", parts, parts, optimize=True)
    sizes = np.concatenate([np.linalg.norm(directions.mid, axis=0)[None], lengths])
    rough = np.concatenate([np.linalg.norm(directions.rad, axis=0)[None], np.linalg.norm(turned.rad, axis=1)])
    found = np.zeros((tokens, units + 1))
    for token in range(tokens):
        own = np.concatenate([np.eye(tokens)[token][None], attn.mid[:, token]])
        off = np.concatenate([np.zeros((1, tokens)), attn.rad[:, token]])
        which = np.append(np.arange(units), units + token)
        square = ((gram[which] @ own) * own[None]).sum(axis=1)
        crude = sizes[:, which].T @ own
        error = 8 * gamma(parts.shape[1] + heads * heads, own) * crude * crude
        uncertain = rough[:, which].T @ own + sizes[:, which].T @ off * 1.01
        found[token] = (np.sqrt(np.maximum(square, 0) + error) + 2 * uncertain).sum(axis=1)
    return raise_all(found * _above(tokens + parts.shape[1]))


def _squares(matrix: Ball) -> Array:
    return raised((abs(matrix.mid) + matrix.rad) ** 2)


def _above(terms: int) -> float:
    """More than what so many roundings of non-negative numbers can take away."""
    return 1 + 4 * gamma(terms, np.float64(0))
