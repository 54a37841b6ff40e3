"""Spectra of attention over up to 131,072 tokens, never formed: how strongly does a step mix, and how fast in the end?

    python experiments/spectra.py                                  # up to 16,384 tokens
    python experiments/spectra.py --tokens 1024 ... 131072 --steps 12     # the long version, three quarters of an hour

Time: some ten minutes on 2 CPU cores for the first; single precision. Expect, for independent Gaussian queries and keys
of width d = 64: the mixing rate sqrt(lambda) = ||JA|| falls towards 1/sqrt(d) = 0.125 and stays there however many
tokens there are, instead of vanishing like 2 sqrt((e - 1) / n) as for independent scores, while the second eigenvalue
goes on falling like sqrt((e - 1) / n). With queries equal to keys both stay near 1: a token's own score, about sqrt(d),
outweighs the others' until n is of the order of e^(|q|^2 / sqrt d) of the longest query. Heads of a real model: of
order 1, and the same for one window of text and for many.

Why 1/sqrt(d): let x_j be the first coordinate of k_j. In the limit row i of A x is E[k_1 e^(q.k / sqrt d)] over
E[e^(q.k / sqrt d)], which is the first coordinate of q_i over sqrt(d); so ||JA x|| / ||x|| tends to 1/sqrt(d), a lower
bound of the limit of ||JA||.

Three kinds of queries and keys: "text", one head of the model on one long text (up to the model's number of positions);
"windows", the same head on a text read in windows of that length, queries of all windows attending to keys of all;
"gaussian" and "shared gaussian", synthetic, independent and with queries equal to keys. Lanczos for ||JA||, Arnoldi for
the largest Ritz value of JA (the eigenvalues of A but for one 1), each with its residual: of a matrix far from normal
a Ritz value is an eigenvalue of A + E, ||E|| its residual. At the smallest length numpy's SVD and eigenvalues of the
matrix itself are given beside them. Writes results/spectra.json, spectra.png and spectra.md.
"""

import dataclasses
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

import jaxsmooth
from drawing import canvas, remark, save
from jaxsmooth import Batch, Encoder, encode
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.bert.attention import project_heads
from jaxsmooth.files import atomic_write
from jaxsmooth.theory import Centred, arnoldi, blocked_attention, operator_norm, ritz_values

COLOURS = {"text": "#000000", "windows": "#D55E00", "gaussian": "#0072B2", "shared gaussian": "#009E73"}
MARKERS = {"text": "*", "windows": "o", "gaussian": "s", "shared gaussian": "D"}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    tokens: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384)
    """Lengths."""
    real_tokens: int = 8192
    """Longest text read in windows."""
    model: str = "minilm-l6"
    """Name of a model asset, a directory or a hub id."""
    data: str = "movie-reviews"
    """Name of a text asset, or a file; its sentences are joined to one text."""
    layers: tuple[int, ...] = (1, 3, 6)
    """Layers whose first head is taken, counting from 1."""
    width: int = 64
    """Head width of the synthetic queries and keys."""
    steps: int = 16
    """Dimension of Arnoldi's space, and most applications of Lanczos."""
    out: Path = Path(__file__).parent / "results"
    """Where the results go."""


@partial(jax.jit, static_argnames="steps")
def spectra(query: Array, key: Array, *, steps: int) -> tuple[Array, Array, Array, Array, Array]:
    """||JA||, its residual and the applications it took; Arnoldi's matrix and what it leaves out."""
    operator = Centred(blocked_attention(query, key, jnp.ones(len(query), bool), block=min(1024, len(query))))
    norm = operator_norm(operator, tolerance=1e-3, max_steps=steps)
    small = arnoldi(operator, steps)
    return norm.value, norm.residual, norm.steps, small.projected, small.coupling


def real_heads(args: Args) -> Iterator[tuple[str, str, Array, Array]]:
    """(kind, name, queries, keys) of the first head of some layers, on one window and on as many as are asked for."""
    model, tokenizer = jaxsmooth.load(args.model)
    length = model.config.max_length
    windows = -(-args.real_tokens // length)
    batches = [window_of(tokenizer, texts, length) for texts in chunks(args, windows, length)]
    parts = [jax.jit(queries_and_keys)(model, batch) for batch in batches]
    query, key = (np.concatenate([np.asarray(part[k]) for part in parts], axis=1) for k in (0, 1))
    for layer in args.layers:
        name = f"{args.model}, layer {layer}, head 1"
        for kind, tokens in [("text", length)] + [("windows", n) for n in args.tokens if n <= args.real_tokens]:
            yield kind, name, jnp.asarray(query[layer - 1, :tokens]), jnp.asarray(key[layer - 1, :tokens])


def chunks(args: Args, windows: int, length: int) -> Iterator[str]:
    """Texts of at least `length` tokens each: a word is a token or more."""
    words = iter(" ".join(read_texts(args.data)).split())
    for _ in range(windows):
        taken = [word for _, word in zip(range(length), words, strict=False)]
        if len(taken) < length:
            raise SystemExit(f"{args.data} is too short for {windows} windows of {length} words; lower --real-tokens.")
        yield " ".join(taken)


def window_of(tokenizer: jaxsmooth.Tokenizer, text: str, length: int) -> Batch:
    """The first `length` tokens of a text."""
    encoded = next(tokenizer.batches([text], tokens_per_batch=length))
    assert encoded.batch.mask.sum() == length, "a window must be full: its padding would be taken for tokens"
    return jax.tree.map(lambda leaf: leaf[:1], encoded.batch)


def queries_and_keys(model: Encoder, batch: Batch) -> tuple[Array, Array]:
    """Of the first head of every layer, [L T H]."""
    return encode(
        model,
        batch,
        collect=lambda trace: tuple(
            project_heads(side, trace.input)[0, 0] for side in (trace.block.attn.query, trace.block.attn.key)
        ),
    )[1]


def synthetic(args: Args) -> Iterator[tuple[str, str, Array, Array]]:
    for tokens in args.tokens:
        rng = np.random.default_rng(tokens)
        query, key = (jnp.asarray(rng.standard_normal((tokens, args.width), np.float32)) for _ in range(2))
        yield "gaussian", f"d = {args.width}", query, key
        yield "shared gaussian", f"d = {args.width}", key, key


def measure(args: Args, kind: str, name: str, query: Array, key: Array) -> dict:
    started = time.perf_counter()
    norm, residual, applications, projected, coupling = spectra(query, key, steps=args.steps)
    values, residuals = ritz_values(jaxsmooth.theory.Hessenberg(projected, coupling))
    row = {
        "kind": kind,
        "name": name,
        "tokens": len(query),
        "mixing_rate": float(norm),
        "mixing_residual": float(residual),
        "applications": int(applications),
        "ritz_modulus": [float(abs(value)) for value in values[:4]],
        "ritz_residual": [float(value) for value in residuals[:4]],
        "seconds": round(time.perf_counter() - started, 2),
    }
    if len(query) <= min(args.tokens):
        row |= exact(np.asarray(query, np.float64), np.asarray(key, np.float64))
    print(row, flush=True)
    return row


def exact(query: np.ndarray, key: np.ndarray) -> dict[str, float]:
    """The same from the matrix itself, double precision, numpy."""
    logits = query @ key.T / np.sqrt(query.shape[1])
    attn = np.exp(logits - logits.max(axis=1, keepdims=True))
    attn /= attn.sum(axis=1, keepdims=True)
    centred = attn - attn.mean(axis=0)
    return {
        "numpy_mixing_rate": float(np.linalg.norm(centred, 2)),
        "numpy_slem": float(np.abs(np.linalg.eigvals(centred)).max()),
    }


def draw(rows: list[dict], args: Args, path: Path) -> None:
    with canvas(12.5, 5.6) as figure:
        left, right = figure.subplots(1, 2)
        names = list(dict.fromkeys(row["name"] for row in rows))
        for kind, name in dict.fromkeys((row["kind"], row["name"]) for row in rows):
            own = [row for row in rows if (row["kind"], row["name"]) == (kind, name)]
            n = [row["tokens"] for row in own]
            look = {"color": COLOURS[kind], "marker": MARKERS[kind], "label": f"{kind}: {name}", "linewidth": 1.2}
            look["linestyle"] = ("-", "--", "-.", ":")[names.index(name) % 4]
            left.plot(n, [row["mixing_rate"] for row in own], **look)
            residual = [row["ritz_residual"][0] for row in own]
            right.errorbar(n, [row["ritz_modulus"][0] for row in own], yerr=residual, capsize=3, **look)
        n = np.array([min(args.tokens), max(args.tokens)], float)
        sides = (
            (left, r"mixing rate $\sqrt{\lambda}$", 2, r"$2\sqrt{(e-1)/n}$"),
            (right, r"largest $|$Ritz value$|$ of $JA$", 1, r"$\sqrt{(e-1)/n}$ (left: twice)"),
        )
        for axes, label, factor, law in sides:
            axes.plot(n, 0 * n + args.width**-0.5, color="#777777", linestyle="--", label=r"$1/\sqrt{d}$")
            axes.plot(n, factor * np.sqrt(np.e - 1) * n**-0.5, color="#777777", linestyle=":", label=law)
            axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
            every = sorted({row["tokens"] for row in rows})
            axes.set_xticks(every, [f"{tokens:,}" for tokens in every], rotation=30)
            axes.minorticks_off()
        right.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
        words = (
            "Bars: residual of the Ritz value. Dashed: limit of the mixing rate for independent Gaussian queries and "
        )
        remark(figure, words + "keys. Dotted: laws of independent Gaussian scores of variance 1.")
        save(figure, path)


def table(rows: list[dict]) -> str:
    head = ["kind", "head", "tokens", "mixing rate", "residual", "Ritz", "residual", "numpy", "numpy", "seconds"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        known = [f"{row[key]:.5f}" if key in row else "" for key in ("numpy_mixing_rate", "numpy_slem")]
        cells = [row["kind"], row["name"], f"{row['tokens']:,}", f"{row['mixing_rate']:.5f}"]
        cells += [f"{row['mixing_residual']:.0e}", f"{row['ritz_modulus'][0]:.5f}", f"{row['ritz_residual'][0]:.0e}"]
        lines.append(" | ".join([*cells, *known, f"{row['seconds']:.1f}"]))
    return "\n".join(f"| {line} |" for line in lines)


def main(args: Args) -> None:
    started = time.perf_counter()
    rows = [measure(args, *head) for heads in (real_heads(args), synthetic(args)) for head in heads]
    found = {
        "seconds": round(time.perf_counter() - started, 1),
        "versions": {"jax": jax.__version__, "device": jax.devices()[0].device_kind},
        "rows": rows,
    }
    atomic_write(args.out / "spectra.json", json.dumps(found, indent=1) + "\n")
    draw(rows, args, args.out / "spectra.png")
    text = f"""# Spectra of attention that is never formed

`python experiments/spectra.py --tokens {" ".join(map(str, args.tokens))} --real-tokens {args.real_tokens}
--steps {args.steps} --model {args.model} --data {args.data}`: single precision,
{found["seconds"]} s on {found["versions"]["device"]}, compiling included. Mixing rate ||JA|| by Lanczos, at most
{args.steps} applications; largest modulus of {args.steps} Ritz values of JA by Arnoldi; at the smallest length numpy's
values of the matrix itself, in double precision.

{table(rows)}

![](spectra.png)
"""
    atomic_write(args.out / "spectra.md", text)
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Args))
