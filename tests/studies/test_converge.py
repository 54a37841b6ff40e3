"""`jaxsmooth converge`: every head of a model, its numbers against numpy, its files, its refusals."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.models import with_factor
from support.parity import precision

import jaxsmooth
from jaxsmooth.cli.main import main
from jaxsmooth.errors import DivergedError, TextError
from jaxsmooth.results.convergence import CONVERGENCE
from jaxsmooth.results.spread import Spread
from jaxsmooth.studies import converge
from jaxsmooth.studies.converge import OPERATORS, converge_heads

LINES = ["Dull.", "a film worth", "so be it", "b"]
STEPS = 64


@pytest.fixture(scope="module")
def tiny():
    return jaxsmooth.load("tiny", dtype="float64")


@pytest.fixture(scope="module")
def found(tiny):
    return converge_heads(*tiny, LINES, name="tiny", window=3, steps=STEPS, tokens_per_batch=64, each_text=True)


def softmax_over(logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
    weight = np.where(seen, np.exp(np.where(seen, logits, 0)), 0)
    return weight / weight.sum(axis=1, keepdims=True)


def by_hand(attn: np.ndarray, values: np.ndarray, weight: np.ndarray | float = 1.0) -> dict[str, float]:
    """One closed class: the limit from LAPACK's left eigenvector, the decay from powers; of diag(w) A diag(1/w)."""
    weight = np.broadcast_to(weight, len(attn))[:, None]
    eigenvalues, vectors = np.linalg.eig(attn.T)
    law = np.real(vectors[:, np.argmin(np.abs(eigenvalues - 1))])
    limit = weight * (law / law.sum() @ (values / weight))
    apart, power = [], values
    for _ in range(STEPS):
        power = weight * (attn @ (power / weight))
        apart.append(np.linalg.norm(power - limit) / np.linalg.norm(values - limit))
    late = [k for k, ratio in enumerate(apart, 1) if ratio > 1e-3]
    rows = np.abs(attn[:, None] - attn[None]).sum(axis=2).max() / 2
    rate = np.sort(np.abs(eigenvalues))[-2]
    if np.all(np.triu(attn, 1) == 0):
        rate = np.diagonal(attn)[1:].max()
    return {"predicted_rate": rate, "ergodicity": rows, "observed_steps": max(late, default=0) + 1}


def test_every_number_against_numpy(tiny, found):
    model, tokenizer = tiny
    pieces: dict[str, list] = {operator: [] for operator in converge.OPERATORS}
    for line in LINES:
        batch = tokenizer([line])
        length = int(batch.mask.sum())
        _, kept = jaxsmooth.encode(model, batch, collect=lambda t: (t.attn_logits, t.input))
        logits, inputs = (np.asarray(part)[:, 0] for part in kept)
        offset = np.arange(length)[None, :] - np.arange(length)[:, None]
        seen = {"full": offset < length, "causal": offset <= 0, "window": (offset <= 0) & (offset > -3)}
        for operator in converge.OPERATORS:
            rows = []
            for layer in range(model.config.layers):
                kernel, bias = (np.asarray(part)[layer] for part in vars_of(model.blocks.attn.value))
                values = np.einsum("td,dnh->nth", inputs[layer, :length], kernel) + bias[:, None]
                scores = logits[layer, :, :length, :length]
                if operator == "symmetric":
                    graphs = [convolution(own) for own in scores]
                    rows.append([by_hand(walk, value, w) for (walk, w), value in zip(graphs, values, strict=True)])
                else:
                    attns = [softmax_over(own, seen[operator]) for own in scores]
                    rows.append([by_hand(attn, value) for attn, value in zip(attns, values, strict=True)])
            pieces[operator].append(rows)
    for operator, sentences in pieces.items():
        rate = np.array([[[head["predicted_rate"] for head in row] for row in rows] for rows in sentences])
        bound = found.operators[operator]["predicted_rate"].mean
        # A bound of the eigenvalue that allows for rounding, which a matrix far from normal magnifies.
        assert np.all((rate.mean(axis=0) * (1 - 1e-9) <= bound) & (bound <= rate.mean(axis=0) * (1 + 2e-3) + 1e-9))
        for name, tolerance in (("ergodicity", 1e-12), ("observed_steps", 0)):
            expected = np.array([[[head[name] for head in row] for row in rows] for rows in sentences])
            spread = found.operators[operator][name]
            np.testing.assert_allclose(spread.mean, expected.mean(axis=0), rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(spread.max, expected.max(axis=0), rtol=tolerance, atol=tolerance)
            assert np.all(spread.count == len(LINES))


def test_the_numbers_of_each_text_are_those_of_the_means(found):
    assert found.each.groups == OPERATORS
    for operator, spreads in found.operators.items():
        for name, spread in spreads.items():
            values = found.each.of(name, operator)
            assert values.shape == (*spread.mean.shape, len(LINES))
            values = np.where(np.isfinite(values), values, np.nan)
            known = ~np.isnan(values)
            np.testing.assert_array_equal(known.sum(axis=-1), spread.count)
            means = np.where(known, values, 0).sum(axis=-1) / np.maximum(spread.count, 1)
            np.testing.assert_allclose(means, np.nan_to_num(spread.mean), rtol=1e-12)


def convolution(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The walk D^(-1) E of E = exp of the symmetric part, and D^(1/2)."""
    graph = np.exp((scores + scores.T) / 2)
    return graph / graph.sum(axis=1)[:, None], np.sqrt(graph.sum(axis=1))


def vars_of(linear) -> tuple:
    return linear.kernel, linear.bias


def test_what_random_weights_do(found):
    """Nearly uniform full attention arrives at once; the window's eigenvalue misleads."""
    full, window = found.operators["full"], found.operators["window"]
    for spreads in found.operators.values():
        assert set(spreads) == set(CONVERGENCE)
        assert np.all(spreads["limit_held"].mean == 1)
        assert np.all(spreads["ergodicity_held"].mean == 1)
        assert np.all(spreads["birkhoff_held"].mean == 1)
    assert np.all(full["birkhoff"].mean < 0.2)
    assert np.all(window["birkhoff"].mean == 1)
    assert np.all(full["observed_steps"].mean < 4)
    assert np.all(window["transient"].max > 4)


def test_batches_and_padding_do_not_change_the_numbers(tiny, found):
    longer = [*LINES, "a longer sentence that shares their batches"]
    alone = converge_heads(*tiny, longer, steps=STEPS, window=3, tokens_per_batch=64)
    for operator in converge.OPERATORS:
        more, fewer = alone.operators[operator], found.operators[operator]
        # The predicted rate is a bound; its allowance for rounding (see above) depends on the length padded to.
        for name, loose in (("predicted_rate", 2e-3), ("observed_steps", 0), ("mixing_rate", 0)):
            assert np.all(more[name].min <= fewer[name].min * (1 + loose) + 1e-9)
            assert np.all(more[name].max >= fewer[name].max * (1 - loose) - 1e-9)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converge")
    (folder / "text.txt").write_text("\n".join(LINES), encoding="utf-8")
    arguments = ["--data", str(folder / "text.txt"), "--out", str(folder / "out"), "--steps", str(STEPS)]
    # The precision of the other tests: a second one is a second program to compile.
    arguments += ["--precision", "float64"]
    assert main(["converge", "tiny", *arguments, "--tokens-per-batch", "64", "--limit", "3"]) == 0
    return folder / "out"


def test_the_command_writes_numbers_and_a_figure(finished):
    assert {path.name for path in finished.iterdir()} == {
        "settings.json",
        *(f"converge.{suffix}" for suffix in ("json", "png", "svg", "pdf")),
    }
    assert (finished / "converge.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((finished / "converge.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["data"]["sentences"] == 3
    assert content["model"]["precision"] == "float64"
    assert "random weights" in content["model"]["note"]
    assert [each["operator"] for each in content["operators"]] == list(converge.OPERATORS)
    layers = content["operators"][0]["layers"]
    assert [layer["layer"] for layer in layers] == [1, 2, 3, 4]
    head = layers[0]["heads"][0]
    assert set(head) == {"head", *CONVERGENCE}
    assert set(head["observed_rate"]) == {"mean", "std", "min", "max", "count"}


def test_the_command_prints_what_held(found, tmp_path, capsys):
    from rich.console import Console

    from jaxsmooth import report

    report.write_convergence(found, tmp_path)
    report.print_convergence(found, Console(width=100))
    out = capsys.readouterr().out
    assert "full: 100% of heads and sentences arrived; the limit held in 100%" in " ".join(out.split())


def test_shares_are_never_rounded_up_to_all(found):
    from jaxsmooth.report.converge import _share

    count = np.full((1, 1), 100_000)
    nearly = Spread(*(np.full((1, 1), 0.99999) for _ in range(4)), count)
    assert _share(nearly) == "99.9%"
    assert _share(Spread(*(np.full((1, 1), np.nan) for _ in range(4)), 0 * count)) == "no sentence"


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ("one string", {}, "Wrap one string in a list"),
        (LINES, {"window": 0}, "window must be a whole number of at least 1; got 0"),
        (LINES, {"steps": 1}, "steps must be a whole number of at least 2; got 1"),
        ([], {}, "texts is empty"),
    ],
    ids=["string", "window", "steps", "empty"],
)
def test_refusals(tiny, texts, options, message):
    with pytest.raises(TextError, match=message):
        converge_heads(*tiny, texts, **options)


def test_a_refusal_of_the_command_is_one_line_and_status_1(tmp_path, capfd):
    assert main(["converge", "tiny", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"jaxsmooth: there is no file .*\n", err)
    assert not (tmp_path / "out").exists()


@pytest.mark.compatibility("long", "converge of a model that has diverged", "the first layer and array is named", was=2)
def test_a_diverged_model_is_refused_by_its_first_array(tiny, found):
    model, tokenizer = tiny
    refusal = r"^layer 2, value is not finite for sentence 1; .* blocks.attn.value.kernel"
    with precision("float64"):
        bad = with_factor(model, "blocks.attn.value.kernel", 1, np.nan)
        with pytest.raises(DivergedError, match=refusal):
            converge_heads(bad, tokenizer, LINES, window=3, steps=STEPS, tokens_per_batch=64)
