"""`converge --map`: trajectories against numpy, blocks of known fate, padding, families, files and words."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from support.models import random_batch, random_model
from support.report import chart_data, synthetic

import jaxsmooth
from jaxsmooth import report
from jaxsmooth.cli.main import main
from jaxsmooth.errors import TextError
from jaxsmooth.results.fate import StdSweep
from jaxsmooth.studies.fate.maps import MAPS, token_map
from jaxsmooth.studies.fate.study import converge_map
from jaxsmooth.studies.fate.threshold import std_thresholds
from jaxsmooth.theory.equal_tokens import equal_token_map
from jaxsmooth.types import map_named

LINES = ["Dull.", "so it be", "a film"]
D, HEADS = 6, 2


@pytest.fixture(scope="module")
def tokenizer():
    return jaxsmooth.load("tiny")[1]


@pytest.fixture(scope="module")
def model():
    """Post-LN, ReLU, small enough to craft: the vocabulary is that of "tiny"."""
    sizes = {"width": D, "heads": HEADS, "mlp_width": 2 * D, "layers": 2, "activation": "relu"}
    return random_model(dataclasses.replace(jaxsmooth.load("tiny")[0].config, **sizes), pooler=False, seed=3)


def crafted(model: jaxsmooth.Encoder, **changed: np.ndarray) -> jaxsmooth.Encoder:
    """No attention, no MLP, unit norms; then what is given, by the last parts of its name."""

    def leaf(name: str, old: jax.Array) -> jax.Array:
        if not name.startswith("blocks."):
            return old
        for ending, value in changed.items():
            if name.endswith(ending.replace("__", ".")):
                return jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
        return jnp.ones_like(old) if name.endswith("scale") else jnp.zeros_like(old)

    return map_named(leaf, model)


def follow_all(model, tokenizer, **options):
    return converge_map(model, tokenizer, LINES, map="layer", layer=1, steps=80, tokens_per_batch=64, **options)


# -- against numpy ---------------------------------------------------------------------------------------------------


def normed(x: np.ndarray, norm, layer: int, std: float | None) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    size = np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12) if std is None else std
    return np.asarray(norm.scale[layer]) * centred / size + np.asarray(norm.bias[layer])


def by_hand(model, x: np.ndarray, kind: str, layer: int, std: float | None = None) -> np.ndarray:
    """One application of a map to one sentence, head by head, in numpy."""
    if kind == "stack":
        for k in range(model.config.layers):
            x = by_hand(model, x, "layer", k, std)
        return x
    attn = jax.tree.map(lambda leaf: np.asarray(leaf[layer]), model.blocks.attn)
    mean, mixed = np.zeros((len(x), len(x))), np.asarray(attn.output.bias)
    for h in range(model.config.heads):
        query, key, value = (x @ linear.kernel[:, h] + linear.bias[h] for linear in (attn.query, attn.key, attn.value))
        weight = np.exp(query @ key.T / math.sqrt(model.config.head_width))
        weight /= weight.sum(axis=1, keepdims=True)
        mean, mixed = mean + weight / model.config.heads, mixed + weight @ value @ attn.output.kernel[h]
    if kind == "attention":
        return mean @ x
    if kind == "attention-values":
        return mixed
    up, down = (
        jax.tree.map(lambda leaf: np.asarray(leaf[layer]), side) for side in (model.blocks.up, model.blocks.down)
    )
    y = normed(x + mixed, model.blocks.norm_attn, layer, std)
    return normed(
        y + np.maximum(y @ up.kernel + up.bias, 0) @ down.kernel + down.bias, model.blocks.norm_mlp, layer, std
    )


def test_every_map_is_what_numpy_says_of_it_and_padding_changes_nothing(model):
    batch = random_batch((7, 3), 8, config=model.config)
    start = np.random.default_rng(0).standard_normal((2, 8, D))
    start[1, 3:] = np.nan  # padding, which no map may read

    @jax.jit
    def run(model, x):
        real = jnp.where(batch.mask[..., None], x, 0)
        junk = jnp.where(batch.mask[..., None], x, 1e3)
        found = {}
        for kind in MAPS:
            apply = token_map(model, kind, jnp.int32(1), batch.mask)
            twice = apply(apply(real))
            found[kind] = twice, apply(apply(junk))
        found["std"] = token_map(model, "layer", jnp.int32(1), batch.mask, jnp.asarray(1.7))(real), real
        return found

    found = run(model, start)
    for row, length in enumerate((7, 3)):
        x = start[row, :length]
        for kind in MAPS:
            expected = by_hand(model, by_hand(model, x, kind, 1), kind, 1)
            for image in found[kind]:
                np.testing.assert_allclose(image[row, :length], expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found["std"][0][row, :length], by_hand(model, x, "layer", 1, 1.7), rtol=1e-10)


def test_of_equal_tokens_one_row_says_all(model):
    """The map of rows that certificates use, against the whole sentence: with its own stds and with an imposed one."""
    blocks = [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), model.blocks) for k in range(model.config.layers)]
    rows = np.random.default_rng(1).standard_normal((3, D))
    for std in (None, 1.7):
        found = equal_token_map(blocks, 1e-12, "relu", std)(rows)
        for row, image in zip(rows, found, strict=True):
            whole = by_hand(model, np.tile(row, (4, 1)), "stack", 0, std)
            np.testing.assert_allclose(whole, np.tile(image, (4, 1)), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def random_fates(model, tokenizer):
    return follow_all(model, tokenizer, name="random")


def test_the_study_starts_where_the_model_does_and_follows_the_map(model, tokenizer, random_fates):
    one = random_fates.maps[0]
    for k, line in enumerate(LINES):
        batch = tokenizer([line])
        length = int(batch.mask.sum())
        x = np.asarray(jaxsmooth.embed(model, batch))[0, :length]
        for step in range(6):
            share = np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x)
            assert one.distances[k, step] == pytest.approx(share, rel=1e-9)
            x = by_hand(model, x, "layer", 0)
        assert sum(map(len, one.clusters[k])) == length == len(random_fates.tokens[k])


# -- blocks of known fate --------------------------------------------------------------------------------------------


def test_a_block_without_attention_and_mlp_leaves_tokens_where_they_are(model, tokenizer):
    """LN(LN(X)) = LN(X): at rest after the first step, as many groups as tokens."""
    one = follow_all(crafted(model), tokenizer).maps[0]
    assert set(one.fate) == {"clusters"}
    assert all(len(groups) > 1 for groups in one.clusters)
    np.testing.assert_array_equal(one.numbers["period"], 1)
    # Deviations within the sphere stay, so they neither grow nor shrink.
    np.testing.assert_allclose(one.numbers["radius"], 1, atol=1e-5)


def test_a_block_that_permutes_features_cycles(model, tokenizer):
    """x + MLP(x) = x P: P X and -P X each through a ReLU. P turns three features: a cycle of 3."""
    permutation = np.eye(D)[[1, 2, 0, 3, 4, 5]]
    up = np.concatenate([np.eye(D), -np.eye(D)], axis=1)
    down = np.concatenate([permutation - np.eye(D), np.eye(D) - permutation])
    one = follow_all(crafted(model, up__kernel=up, down__kernel=down), tokenizer).maps[0]
    assert set(one.fate) == {"cycle"}
    np.testing.assert_array_equal(one.numbers["period"], 3)


def test_a_large_common_bias_brings_consensus_at_the_rate_of_the_local_law(model, tokenizer):
    """A bias in front of LN makes the std large: rho(M) is 1 / (std_1 std_2) in the directions across it."""
    bias = np.array([8.0, -8, 4, -4, 2, -2])
    biased = crafted(model, down__bias=bias)
    found = follow_all(biased, tokenizer)
    one = found.maps[0]
    assert set(one.fate) == {"consensus"}
    assert [len(groups) for groups in one.clusters] == [1, 1, 1]
    numbers = one.numbers
    np.testing.assert_array_equal(numbers["rank"], 0)
    # The common token: y = bias / its std, u = y + bias; LN leaves the direction and 1 / std across it.
    std = np.sqrt((bias**2).mean())
    np.testing.assert_allclose(numbers["consensus_radius"], 1 / (1 + std), rtol=1e-6)
    np.testing.assert_allclose(numbers["consensus_rate"], 1 / (1 + std), rtol=1e-3)
    assert np.all(numbers["row_change"] < 1e-10)


def test_a_repeated_run_in_other_company_says_the_same(model, tokenizer, random_fates):
    alone = converge_map(model, tokenizer, LINES[:1], map="layer", layer=1, steps=80, tokens_per_batch=64).maps[0]
    whole = random_fates.maps[0]
    assert alone.fate[0] == whole.fate[0]
    assert alone.clusters[0] == whole.clusters[0]
    for name, numbers in alone.numbers.items():
        np.testing.assert_allclose(numbers[0], whole.numbers[name][0], rtol=1e-6, err_msg=name)


# -- families, thresholds --------------------------------------------------------------------------------------------


TEXT_FAMILIES = ("gpt2", "albert", "distilbert", "electra", "camembert", "roberta", "mpnet", "modernbert")


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_the_stack_of_every_family_is_its_encoder(family):
    config = jaxsmooth.family_config(
        family, vocab=30, width=12, layers=2, heads=3, mlp_width=20, max_length=12, pad_token=0
    )
    model = random_model(config, pooler=False)
    batch = random_batch((7, 3), 8, config=dataclasses.replace(config, segments=max(1, config.segments)))
    _, kept = jaxsmooth.encode(model, batch, collect=lambda trace: (trace.input, trace.hidden))
    image = jax.jit(lambda model, x: token_map(model, "stack", jnp.int32(0), batch.mask)(x))(model, kept[0][0])
    real = np.asarray(batch.mask)
    np.testing.assert_allclose(np.asarray(image)[real], np.asarray(kept[1][-1])[real], rtol=1e-12, atol=1e-12)


def patch_family(family: str) -> jaxsmooth.Encoder:
    """A small ViT or DeiT: 4 patches behind one special token or two."""
    sizes = {"width": 12, "layers": 2, "heads": 3, "mlp_width": 20, "image_size": 8, "patch_size": 4, "channels": 2}
    return random_model(jaxsmooth.family_config(family, **sizes, max_length=5 + (family == "deit")), pooler=False)


def mean_attention(model: jaxsmooth.Encoder, x: np.ndarray, layer: int) -> np.ndarray:
    """The mean over heads of a pre-LN block's attention, acting on tokens [T D], in numpy."""
    attn, norm = (
        jax.tree.map(lambda leaf: np.asarray(leaf[layer]), part) for part in (model.blocks.attn, model.blocks.norm_attn)
    )
    centred = x - x.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + model.config.eps) * norm.scale + norm.bias
    query, key = (np.einsum("td,dnh->nth", normed, side.kernel) + side.bias[:, None] for side in (attn.query, attn.key))
    weights = np.exp(query @ key.swapaxes(1, 2) / math.sqrt(model.config.head_width))
    return np.mean(weights / weights.sum(axis=2, keepdims=True), axis=0) @ x


@pytest.mark.parametrize("family", ["vit", pytest.param("deit", marks=pytest.mark.long)])
def test_images_are_followed_as_sentences_are(family):
    """The stack is the encoder; attention, step by step, numpy's; every token counts, the special ones too."""
    model = patch_family(family)
    images = np.random.default_rng(0).standard_normal((2, 2, 8, 8))
    _, kept = jaxsmooth.encode(
        model,
        jaxsmooth.image_batch(model.config, jnp.asarray(images)),
        collect=lambda trace: (trace.input, trace.hidden),
    )
    stack, attention = (
        converge_map(model, None, list(images), map=kind, layer=layer, steps=6, tokens_per_batch=64).maps[0]
        for kind, layer in (("stack", None), ("attention", 2))
    )
    for k in range(2):
        ends = [np.asarray(states[layer][k]) for states, layer in zip(kept, (0, -1), strict=True)]
        shares = [np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x) for x in ends]
        np.testing.assert_allclose(stack.distances[k, :2], shares, rtol=1e-10)
        x = np.asarray(kept[0][1][k])
        for step in range(3):
            share = np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x)
            assert attention.distances[k, step] == pytest.approx(share, rel=1e-9)
            x = mean_attention(model, x, 1)
        assert sum(map(len, stack.clusters[k])) == len(x) == model.config.max_length


@pytest.mark.long
def test_the_thresholds_are_the_theorems(model):
    """Norms by LAPACK, head by head; ReLU has slope 1."""
    mixing = np.array([[0.5, 0.7], [0.6, 0.4]])
    two = lambda kernel: np.linalg.norm(np.asarray(kernel), 2)  # noqa: E731
    heads = np.array(
        [
            [
                two(np.asarray(model.blocks.attn.value.kernel)[k, :, h] @ model.blocks.attn.output.kernel[k, h])
                for h in (0, 1)
            ]
            for k in (0, 1)
        ]
    )
    mlp = np.array([[two(side.kernel[k]) for side in (model.blocks.up, model.blocks.down)] for k in (0, 1)])
    gains = [
        np.abs(model.blocks.norm_attn.scale[k]).max() * np.abs(model.blocks.norm_mlp.scale[k]).max() for k in (0, 1)
    ]
    own = [(1 + mlp[k].prod()) * (1 + (mixing[k] * heads[k]).sum()) * gains[k] for k in (0, 1)]
    for layers in ([0], [0, 1]):
        s = max(heads[layers].max(), mlp[layers].max())
        paper = (1 + s**2) * (1 + mixing[layers].max() * HEADS * s)
        found = std_thresholds(model, mixing, layers)
        np.testing.assert_allclose(found, [paper**0.5, max(own[k] for k in layers) ** 0.5], rtol=1e-5)


# -- files, words, refusals ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(model, tokenizer):
    return converge_map(
        model, tokenizer, LINES[:2], map="layer", layer=1, steps=30, std=[0.5, 50.0], basin=2, tokens_per_batch=64
    )


@pytest.mark.long
def test_a_large_imposed_std_brings_every_sentence_to_consensus(swept):
    (sweep,) = swept.sweeps
    assert set(sweep.fate[1]) == {"consensus"}
    assert sweep.stds[1] > sweep.layer_threshold
    assert np.all(sweep.rate[1] < (sweep.layer_threshold / 50) ** 2)
    reached, missed = (swept.maps[0].numbers[f"basin_{end}"] for end in ("reached", "missed"))
    assert np.all((reached >= 0) & (reached < missed))


def test_files_and_words(random_fates, tmp_path, capsys):
    """A basin and a sweep are put beside what was found, so that nothing is compiled for them."""
    one, count = random_fates.maps[0], len(LINES)
    basin = {"basin_reached": np.full(count, 0.25), "basin_missed": np.full(count, 0.5)}
    fates = (("moving",) * count, ("consensus",) * count)
    sweep = StdSweep(1, np.array([0.5, 50.0]), fates, np.full((2, count), 0.9), 8.0, np.nan)
    found = dataclasses.replace(
        random_fates, maps=(dataclasses.replace(one, numbers=one.numbers | basin),), sweeps=(sweep,)
    )
    paths = report.write_fates(found, tmp_path)
    assert set(paths) == {"numbers", "fates", "curves", "basin", "std"}
    content = json.loads(paths["numbers"].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert [each["layer"] for each in content["maps"]] == [1]
    assert len(content["maps"][0]["sentences"]) == len(content["tokens"]) == count
    assert [point["shares"]["consensus"] for point in content["sweeps"][0]["points"]] == [0, 1]
    assert content["sweeps"][0]["layer_threshold"] is None
    assert all(path.read_bytes().startswith(b"\x89PNG") for name, path in paths.items() if name != "numbers")
    report.print_fates(found, Console(width=160))
    out = " ".join(capsys.readouterr().out.split())
    assert "Where do the tokens go? Consensus in every sentence (layer 1)." in out
    assert "Imposed std, layer 1: all sentences reach consensus from a std of 50.0 on" in out
    assert "tokens reach consensus up to s = 0.250" in out


FOUR = ("consensus",) * 2, ("moving", "consensus"), ("consensus",) * 2, ("consensus",) * 2


@pytest.mark.parametrize(
    ("stds", "fates", "words"),
    [
        ([1, 2, 4, 8], FOUR, "all sentences reach consensus from a std of 4.00 on, up to the largest tried, 8.00."),
        ([8, 2, 1, 4], FOUR, "all sentences reach consensus from a std of 4.00 on, up to the largest tried, 8.00."),
        ([1, 2], FOUR[:2], "all sentences reach consensus with a std of 1.00, but not with the largest tried, 2.00."),
        ([2], FOUR[1:2], "no std tried brings all."),
    ],
)
def test_from_which_std_on(random_fates, stds, fates, words):
    """Of all larger ones that were tried, in whatever order: one that fails ends it."""
    sweep = StdSweep(1, np.array(stds, float), fates, np.ones((len(stds), 2)), np.nan, np.nan)
    told = list(report.fate.words.answers(dataclasses.replace(random_fates, maps=(), sweeps=(sweep,))))
    assert told == [f"Imposed std, layer 1: {words}"]
    sweep = dataclasses.replace(sweep, paper_threshold=9.0, layer_threshold=3.0)
    (told,) = report.fate.words.answers(dataclasses.replace(random_fates, maps=(), sweeps=(sweep,)))
    assert "the theorem's bound of one step, with attention as in the model's own run, is below 1 from 9.00 on" in told


def test_words_count_the_sentences_where_consensus_attracts(random_fates):
    one = random_fates.maps[0]
    unknown = np.full(3, np.nan)
    numbers = one.numbers | {"row_change": np.zeros(3), "consensus_rate": np.array([0.5, 0.6, 1.2]), "radius": unknown}
    for law, words in (
        ([0.5, 0.6, 1.2], "so consensus attracts in 2 of 3 what is near"),
        ([0.5, 0.6, 0.7], "so consensus attracts what is near"),
        ([1.5, 1.6, 1.7], "so consensus repels what is near"),
        ([0.5, np.nan, 1.2], "so consensus attracts in 1 of 2 what is near"),
    ):
        changed = dataclasses.replace(one, numbers=numbers | {"consensus_radius": np.array(law)})
        told = " ".join(report.fate.words.answers(dataclasses.replace(random_fates, maps=(changed,))))
        assert words in told
    still = dataclasses.replace(one, fate=("clusters",) * 3, numbers=numbers | {"radius": np.array([0.9, 1.1, 1.2])})
    told = " ".join(report.fate.words.answers(dataclasses.replace(random_fates, maps=(still,))))
    assert "(it attracts in 1 of 3)" in told


def test_the_page_has_a_section(random_fates):
    page = report.render_page(dataclasses.replace(synthetic(), fate=random_fates))
    assert "Where do the tokens go?" in page
    assert "<p>Layer 1 applied again and again:" in page
    assert chart_data(page_charts(page)["fate"], "fate")
    assert "Where do the tokens go?" not in report.render_page(synthetic())


def page_charts(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)[1])


@pytest.mark.long
def test_the_command(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("Dull.\nso be it", encoding="utf-8")
    arguments = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out"), "--precision", "float64"]
    arguments += ["--map", "attention", "--layer", "2", "--steps", "9", "--tokens-per-batch", "32"]
    assert main(["converge", "tiny", *arguments]) == 0
    content = json.loads((tmp_path / "out" / "fate.json").read_text(encoding="utf-8"))
    assert (content["map"], content["steps"], content["maps"][0]["layer"]) == ("attention", 9, 2)
    assert content["maps"][0]["shares"]["consensus"] == 1
    assert "all tokens become equal" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": "all"}, "map must be one of attention, attention-values, layer, stack; got 'all'"),
        ({"map": "layer", "layer": 3}, "layer=3 is out of range: layers count from 1 to 2"),
        ({"map": "stack", "layer": 1}, "the stack has all layers"),
        ({"map": "layer", "steps": 1}, "steps must be a whole number of at least 2"),
        ({"map": "layer", "basin": -1}, "basin must be a whole number of at least 0"),
        ({"map": "layer", "std": []}, "several; got none"),
        ({"map": "layer", "std": 0.0}, "an imposed std must be a finite number above 0"),
        ({"map": "layer", "std": [1.0, np.nan]}, "an imposed std must be a finite number above 0; got nan"),
        ({"map": "layer", "tolerance": np.nan}, "tolerance must be a finite number above 0; got nan"),
        ({"map": "attention", "std": 2.0}, "map must be layer or stack; got 'attention'"),
        ({"map": "frozen", "basin": 2}, "do not go with map=frozen"),
    ],
)
def test_refusals(model, tokenizer, options, message):
    with pytest.raises(TextError, match=message):
        jaxsmooth.converge(model, tokenizer, LINES, **options)
