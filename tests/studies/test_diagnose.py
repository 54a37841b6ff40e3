"""`diagnose` as a program: invariance, streaming, what it does with odd input. Its numbers are checked elsewhere."""

import dataclasses
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import MLP, with_factor
from support.parity import precision

import jaxsmooth
from jaxsmooth import metrics
from jaxsmooth.checkpoints.encoder import TINY
from jaxsmooth.errors import DivergedError, TextError
from jaxsmooth.inputs.tokenizer import Tokenizer, TruncationWarning
from jaxsmooth.results.diagnosis import Diagnosis, Exemplar
from jaxsmooth.results.spread import BLOCK_METRICS, HEAD_METRICS, HIDDEN_METRICS, Spread
from jaxsmooth.results.summaries import RATES
from jaxsmooth.studies import diagnose
from jaxsmooth.studies.statements.baselines import own_words
from jaxsmooth.theory import BlockNorms

# A token per character: all of these fit the bucket of 16, so that few shapes are ever compiled.
TEXTS = ["Dull.", "a film worth", "so be it", "see it", "it is what it", "b", "no! no! no!", "2 b or not 2 b"]
TEXTS += ["", "a", "aaaaaaaa", "not bad", "bad"]
SMALL = {"tokens_per_batch": 64}  # 4 rows of 16


def spreads(diagnosis: Diagnosis) -> dict[str, Spread]:
    named = {field.name: getattr(diagnosis, field.name) for field in dataclasses.fields(Diagnosis)}
    # The first layer has none before it, and so no value.
    named["attention_similarity"] = named["attention_similarity"].map(lambda field: field[1:])
    return {name: value for name, value in named.items() if isinstance(value, Spread)} | diagnosis.rates


def fields(spread: Spread) -> dict[str, np.ndarray]:
    return {field.name: getattr(spread, field.name) for field in dataclasses.fields(Spread)}


# In float32 Lanczos stops at a relative error of 1e-3 of ||T||^2, half of that of L3, and which iterate comes first
# below depends on the start, whose random part depends on the padding.
LANCZOS_FLOAT32 = 5e-4


def assert_same_numbers(ours: Diagnosis, theirs: Diagnosis, tolerance: float) -> None:
    for name, expected in spreads(theirs).items():
        got = spreads(ours)[name]
        single = "float32" in (ours.model.precision, theirs.model.precision)
        lanczos = name == "L3" and single
        # Attention rounds in another way in batches of another shape, by eps/2 of its Frobenius norm, which is at least
        # 1; a mixing rate, the norm of what is left without the mean, moves by no less however small it is.
        atol = 2.0**-24 if name == "mixing_rate" and single else 0
        # Differences of logarithms, which round by eps of the numbers, however small the difference is.
        atol = (1e-5 if single else 1e-11) if name == "attribution" else atol
        rtol = max(tolerance, LANCZOS_FLOAT32) if lanczos else tolerance
        np.testing.assert_array_equal(got.count, expected.count, err_msg=name)
        for field in ("mean", "min", "max"):
            values = getattr(got, field), getattr(expected, field)
            np.testing.assert_allclose(*values, rtol=rtol, atol=atol, err_msg=f"{name}.{field}")
        # A standard deviation is a difference of values: it is as exact as they are, not as it is small.
        scale = np.maximum(np.abs(expected.max), np.abs(expected.min))
        assert np.all(np.abs(got.std - expected.std) <= rtol * scale + atol), name


def permuted(texts: list[str]) -> list[str]:
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


@pytest.fixture(scope="module")
def found() -> dict[str, Diagnosis]:
    """The tiny model on TEXTS in batches of 4 x 16, in both precisions."""
    results = {}
    for name in ("float32", "float64"):
        with precision(name):
            model, tokenizer = jaxsmooth.load("tiny", dtype=name)
            results[name] = jaxsmooth.diagnose(model, tokenizer, TEXTS, **SMALL)
    return results


def test_batch_size_and_order_do_not_matter_in_float32(found):
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        other = jaxsmooth.diagnose(model, tokenizer, permuted(TEXTS), tokens_per_batch=1024)
    assert_same_numbers(other, found["float32"], 1e-5)


@pytest.mark.long
def test_bucket_batch_size_and_order_do_not_matter_in_float64(found):
    with precision("float64"):
        model, tokenizer = jaxsmooth.load("tiny", dtype="float64")
        tokenizer.buckets = (32, 128)  # twice the padding
        other = jaxsmooth.diagnose(model, tokenizer, permuted(TEXTS), tokens_per_batch=256)
    assert_same_numbers(other, found["float64"], 1e-10)


def test_the_precisions_differ_in_rounding_only(found):
    assert found["float64"].model.precision == "float64"
    assert_same_numbers(found["float32"], found["float64"], 1e-3)
    assert not np.array_equal(found["float32"].cosine_similarity.mean, found["float64"].cosine_similarity.mean)


def test_two_runs_give_the_same_bits(found):
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        again = jaxsmooth.diagnose(model, tokenizer, iter(TEXTS), **SMALL)
    for name, spread in spreads(again).items():
        for field, value in fields(spread).items():
            assert value.tobytes() == fields(spreads(found["float32"])[name])[field].tobytes(), (name, field)
    assert again.exemplar.attn.tobytes() == found["float32"].exemplar.attn.tobytes()


def test_a_diagnosis_says_what_was_measured(found):
    diagnosis, layers, heads = found["float32"], TINY.layers, TINY.heads
    assert set(diagnosis.rates) == set(RATES)
    shapes = {name: spread.mean.shape for name, spread in spreads(diagnosis).items()}
    shapes["attention_similarity"] = diagnosis.attention_similarity.mean.shape
    assert shapes.pop("attribution") == (layers, 4)
    by_head = set(HEAD_METRICS)
    hidden = {
        "cosine_similarity",
        "relative_distance",
        "subspace_distance",
        "effective_rank",
        "stable_rank",
        "token_norm",
    }
    for name, shape in shapes.items():
        assert shape == ((layers, heads) if name in by_head else (layers + (name in hidden),)), name
    for spread in spreads(diagnosis).values():
        assert {str(value.dtype) for field, value in fields(spread).items() if field != "count"} == {"float64"}
    model = diagnosis.model
    assert (model.layers, model.heads, model.width, model.mlp_width) == (4, 4, 64, 256)
    assert (model.family, model.activation, model.precision) == ("bert", "gelu", "float32")
    assert model.parameters == sum(leaf.size for leaf in jax.tree.leaves(jaxsmooth.load("tiny")[0]))
    assert {"jaxsmooth", "jax", "device"} <= set(diagnosis.versions)


def test_data_counts_real_tokens(found):
    tokenizer = Tokenizer.tiny(TINY)
    tokens = int(tokenizer(TEXTS).mask.sum())
    data = found["float32"].data
    assert (data.sentences, data.tokens, data.truncated) == (len(TEXTS), tokens, 0)


def test_extrema_are_extrema(found):
    diagnosis = found["float64"]
    for name, spread in spreads(diagnosis).items():
        slack = 1e-12 * np.abs(spread.mean)
        assert np.all((spread.min <= spread.mean + slack) & (spread.mean <= spread.max + slack)), name
        assert np.all(spread.std <= (spread.max - spread.min) + slack), name
    model, tokenizer = jaxsmooth.load("tiny", dtype="float64")
    batch = tokenizer(TEXTS)
    real = np.asarray(batch.mask)
    _, trace = jaxsmooth.encode(model, batch)
    # Of the stds the extrema are over every token, not over the sentences' means.
    for name in ("std_attn", "std_mlp"):
        values, spread = np.asarray(getattr(trace, name))[..., 0], getattr(diagnosis, name)
        np.testing.assert_allclose(spread.min, values[:, real].min(axis=1), rtol=1e-11)
        np.testing.assert_allclose(spread.max, values[:, real].max(axis=1), rtol=1e-11)
        means = [values[:, b, row].mean(axis=1) for b, row in enumerate(real)]
        np.testing.assert_allclose(spread.mean, np.mean(means, axis=0), rtol=1e-11)
        np.testing.assert_allclose(spread.std, np.std(means, axis=0), rtol=1e-9)


def test_the_parts_add_up_to_the_change_of_the_relative_distance():
    with precision("float64"):
        model, tokenizer = jaxsmooth.load("tiny", dtype="float64")
        one = jaxsmooth.diagnose(model, tokenizer, TEXTS[:1], baseline=False, **SMALL)
    changes = np.diff(np.log(one.relative_distance.mean))
    np.testing.assert_allclose(one.attribution.mean.sum(axis=1), changes, rtol=0, atol=1e-12)
    assert one.parts == ("attention", "norm_attn", "mlp", "norm_mlp")
    assert np.isnan(one.anisotropy).all()  # of one text there are no two
    assert one.untrained is None


def test_anisotropy_is_the_mean_over_all_pairs_of_texts(found):
    """Every token of every text against every token of every other, in numpy."""
    with precision("float64"):
        model, tokenizer = jaxsmooth.load("tiny", dtype="float64")
        batch = tokenizer(TEXTS)
        _, trace = jaxsmooth.encode(model, batch)
        states = [np.asarray(jaxsmooth.embed(model, batch)), *np.asarray(trace.hidden)]
    real, expected = np.asarray(batch.mask), []
    for state in states:
        units = [
            text[mask] / np.linalg.norm(text[mask], axis=1, keepdims=True)
            for text, mask in zip(state, real, strict=True)
        ]
        pairs = [(a @ b.T).mean() for i, a in enumerate(units) for j, b in enumerate(units) if i != j]
        expected.append(np.mean(pairs))
    np.testing.assert_allclose(found["float64"].anisotropy, expected, rtol=1e-10)
    np.testing.assert_allclose(found["float32"].anisotropy, expected, rtol=1e-5)


def test_the_untrained_twin_has_the_architecture_and_the_texts_of_the_first_batch(found):
    """Its word table has rows for the words of that batch alone; with all rows it is another draw of the same."""
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        batch = tokenizer(TEXTS[:4])
        tokens = np.asarray(batch.tokens)
        used, numbers = np.unique(np.append(tokens.ravel(), model.config.pad_token), return_inverse=True)
        assert model.config.pad_token == used[0] == 0
        few = dataclasses.replace(model.config, vocab=min(model.config.vocab, tokens.size + 1))
        twin = jaxsmooth.init_encoder(few, jax.random.key(1))
        states = states_of(twin, dataclasses.replace(batch, tokens=jnp.asarray(numbers[:-1].reshape(tokens.shape))))
        whole = [states_of(jaxsmooth.init_encoder(model.config, jax.random.key(seed)), batch) for seed in range(2, 10)]
    own, mask = found["float32"], batch.mask
    untrained = own.untrained
    assert (untrained.texts, untrained.seed) == (4, 1)
    assert not np.allclose(untrained.cosine_similarity, own.cosine_similarity.mean, rtol=1e-3)
    measures = metrics.token_cosine_similarity, metrics.relative_distance
    for value, measure in zip((untrained.cosine_similarity, untrained.relative_distance), measures, strict=True):
        expected = [np.mean(measure(state, mask)) for state in states]
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        others = np.array([[np.mean(measure(state, mask)) for state in each] for each in whole])
        assert np.all(np.abs(value - others.mean(axis=0)) < 3 * others.std(axis=0, ddof=1))


def states_of(model, batch):
    return [jaxsmooth.embed(model, batch), *jaxsmooth.encode(model, batch)[1].hidden]


@pytest.mark.parametrize("offset", [0, 2])
def test_numbers_up_to_that_of_the_padding_stay(offset):
    """RoBERTa's positions count by the padding's number, which is 1."""
    config = jaxsmooth.EncoderConfig(
        vocab=60, width=8, layers=1, heads=2, mlp_width=8, max_length=16, pad_token=1, position_offset=offset
    )
    tokens = np.array([[0, 57, 40, 57, 2], [0, 3, 2, 1, 1]])
    batch, few = own_words(jaxsmooth.Batch(tokens=tokens, mask=tokens != 1), config)
    assert batch.tokens.tolist() == [[0, 5, 4, 5, 2], [0, 3, 2, 1, 1]]
    assert few.vocab == 12
    assert few == dataclasses.replace(config, vocab=12)
    assert own_words(batch, dataclasses.replace(few, vocab=6))[1].vocab == 6


def test_the_rows_that_fill_the_last_batch_do_not_count():
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        one, five = (jaxsmooth.diagnose(model, tokenizer, TEXTS[:1] * count, **SMALL) for count in (1, 5))
    assert (one.data.sentences, five.data.sentences) == (1, 5)
    for name, spread in spreads(one).items():
        repeated = spreads(five)[name]
        assert np.all(spread.count == 1), name
        assert np.all(repeated.count == 5), name
        np.testing.assert_array_equal(spread.std, 0, err_msg=name)
        np.testing.assert_allclose(repeated.mean, spread.mean, rtol=1e-6, err_msg=name)


class LoneToken(Tokenizer):
    """As the tiny tokenizer, but the first row of every batch is cut to its first token."""

    def batches(self, texts, *, tokens_per_batch=1024):
        for encoded in super().batches(texts, tokens_per_batch=tokens_per_batch):
            mask = encoded.batch.mask.at[0, 1:].set(False)
            yield dataclasses.replace(encoded, batch=dataclasses.replace(encoded.batch, mask=mask))


def test_a_sentence_of_one_token_is_left_out_of_what_it_has_not():
    with precision("float32"):
        model, _ = jaxsmooth.load("tiny")
        lone = LoneToken.tiny(TINY)
        diagnosis = jaxsmooth.diagnose(model, lone, TEXTS, **SMALL)
        alone = jaxsmooth.diagnose(model, lone, ["a"], **SMALL)
    batches = -(-len(TEXTS) // 4)
    # One token has no pair, and nothing to contract; all else it has.
    undefined = {"cosine_similarity", "actual", "L5", "L4", "L3", "L2b", "L2", "L1", "L0"}
    for name in undefined:
        assert np.all(spreads(diagnosis)[name].count == len(TEXTS) - batches), name
        assert np.all(np.isfinite(spreads(diagnosis)[name].mean)), name
    for name in ("relative_distance", "effective_rank", "std_attn", "token_norm", "mixing_rate", "attention_entropy"):
        assert np.all(spreads(diagnosis)[name].count == len(TEXTS)), name
    for name in undefined:
        spread = spreads(alone)[name]
        assert np.all(spread.count == 0), name
        assert np.isnan([spread.mean, spread.std, spread.min, spread.max]).all(), name
    np.testing.assert_allclose(alone.effective_rank.mean, 1, rtol=1e-6)
    np.testing.assert_array_equal(alone.subspace_distance.max, 0)


@pytest.mark.long
def test_a_bfloat16_model_is_measured_in_float32(found):
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny", dtype="bfloat16")
        rough = jaxsmooth.diagnose(model, tokenizer, TEXTS, **SMALL)
    assert rough.model.precision == "bfloat16"
    for name in ("cosine_similarity", "token_norm", "mixing_rate", "L3"):
        # Eight bits of weights and hidden states: per cent, where a wrong quantity would be far off.
        np.testing.assert_allclose(spreads(rough)[name].mean, spreads(found["float32"])[name].mean, rtol=0.05)


def negative_gains(model):
    return jax.tree_util.tree_map_with_path(lambda path, a: -a if str(path[-1]) == ".scale" else a, model)


def huge_weights(model):
    return jax.tree.map(lambda a: 20 * a, model)


@pytest.mark.parametrize("change", [negative_gains, huge_weights])
def test_odd_models_give_finite_numbers(change):
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        odd = change(model)
        assert not np.array_equal(odd.embeddings.norm.scale, model.embeddings.norm.scale)
        diagnosis = jaxsmooth.diagnose(odd, tokenizer, TEXTS, **SMALL)
    assert np.isnan(diagnosis.attention_similarity.mean[0])
    for name, spread in spreads(diagnosis).items():
        assert all(np.isfinite(value).all() for value in fields(spread).values()), name
        assert np.all(spread.count == len(TEXTS)), name
    for tighter, looser in zip(RATES, ("L4", "L3", "L2b"), strict=False):
        assert np.all(diagnosis.rates[tighter].max <= diagnosis.rates[looser].max * (1 + 1e-3)), (tighter, looser)


@pytest.fixture
def unmeasured(monkeypatch):
    """`diagnose` without its mathematics: every quantity is the number of real tokens."""
    names = {*HIDDEN_METRICS, *HEAD_METRICS, *BLOCK_METRICS, *RATES}
    names |= {f"{key}{end}" for key in ("std_attn", "std_mlp") for end in ("", "_min", "_max")}
    names |= {"attribution", "directions", "embedding"}

    def measure_batch(model, norms, batch, fusion, spectra, frames, own):
        count = np.asarray(batch.mask.sum(axis=1), np.float64)[None]
        return dict.fromkeys(names, count)

    monkeypatch.setattr(diagnose, "measure_batch", measure_batch)
    monkeypatch.setattr(diagnose, "model_spectra", lambda model: None)
    monkeypatch.setattr(diagnose, "model_norms", lambda model: BlockNorms(*(None,) * len(BlockNorms._fields)))


class Text(str):
    """A string that can be watched."""

    __slots__ = ("__weakref__",)


def most_alive(count: int) -> int:
    """How many sentences of a stream are alive at once while `diagnose` reads it."""
    alive: dict[int, weakref.ref] = {}
    most = 0

    def stream():
        nonlocal most
        for number in range(count):
            text = Text("film" + "s" * (number % 40))
            alive[number] = weakref.ref(text, lambda _, number=number: alive.pop(number))
            most = max(most, len(alive))
            yield text

    diagnosis = jaxsmooth.diagnose(*jaxsmooth.load("tiny"), stream(), baseline=False)
    assert diagnosis.data.sentences == count
    return most


@pytest.mark.usefixtures("unmeasured")
def test_memory_does_not_grow_with_the_stream():
    short, long = most_alive(1500), most_alive(3000)
    assert short == long < 800


@pytest.mark.usefixtures("unmeasured")
def test_the_stream_is_read_lazily():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield "a film"
            if read > 2000:
                raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        jaxsmooth.diagnose(*jaxsmooth.load("tiny"), endless(), **SMALL)
    assert read == 2001


@pytest.mark.usefixtures("unmeasured")
def test_truncation_is_said_and_counted():
    model, tokenizer = jaxsmooth.load("tiny")
    texts = ["short", "l " * 200, "x " * 127, "y " * 126]
    with pytest.warns(TruncationWarning, match="2 of 4 texts were cut to 128 tokens") as warned:
        diagnosis = jaxsmooth.diagnose(model, tokenizer, texts)
    assert len(warned) == 1
    assert diagnosis.data == dataclasses.replace(diagnosis.data, sentences=4, tokens=7 + 3 * 128, truncated=2)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("progress", [False, True])
def test_progress_goes_to_stderr_and_only_if_asked_for(progress, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the captured stream for a terminal
    monkeypatch.setenv("TERM", "xterm")
    jaxsmooth.diagnose(*jaxsmooth.load("tiny"), TEXTS, progress=progress)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("diagnosing" in err) == progress


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "texts is empty"),
        ("a film", "got str. Wrap one string in a list"),
        (iter(["a", None]), r"texts\[1\] must be a string; got NoneType"),
        (iter([b"a"]), r"texts\[0\] must be a string; got bytes"),
        (["\ud800"], r"texts\[0\] .* not valid Unicode"),
    ],
    ids=["empty", "string", "None inside", "bytes", "surrogate"],
)
@pytest.mark.usefixtures("unmeasured")
def test_what_is_no_text_is_refused(texts, message):
    with pytest.raises(TextError, match=message):
        jaxsmooth.diagnose(*jaxsmooth.load("tiny"), texts)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("size", [0, -5, True])
def test_a_bad_batch_size_is_refused(size):
    with pytest.raises(TextError, match="tokens_per_batch must be a whole number of at least 1"):
        jaxsmooth.diagnose(*jaxsmooth.load("tiny"), TEXTS, tokens_per_batch=size)


def exemplar_of(texts, **changes) -> Exemplar | None:
    config = dataclasses.replace(TINY, layers=2, width=8, heads=2, mlp_width=8, **changes)
    return jaxsmooth.diagnose(jaxsmooth.init_encoder(config, jax.random.key(0)), Tokenizer.tiny(config), texts).exemplar


@pytest.mark.usefixtures("unmeasured")
def test_the_exemplar_is_the_longest_legible_sentence_whatever_the_order():
    texts = [
        "zebra crossing",
        "a film worthy",
        "short",
        "much too long to be at all legible",
        "zebra",
        "apple crossing",
    ]
    first, second = exemplar_of(texts), exemplar_of(texts[::-1])
    assert first.text == second.text == "apple crossing"
    assert first.tokens[:4] == ("[CLS]", "a", "##p", "##p")
    assert first.cosine.shape == (3, 15, 15)
    assert first.attn.shape == (2, 2, 15, 15)
    for name in ("cosine", "attn"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_allclose(first.attn.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.diagonal(first.cosine, axis1=1, axis2=2), 1, rtol=1e-6)


@pytest.mark.usefixtures("unmeasured")
def test_there_is_no_exemplar_without_a_legible_sentence():
    assert exemplar_of(["a sentence that is much too long to be legible"]) is None


@pytest.mark.usefixtures("unmeasured")
def test_a_model_with_few_positions_has_an_exemplar_too():
    exemplar = exemplar_of(["Dull.", "a film or"], max_length=10)
    assert exemplar.text == "a film or"
    assert exemplar.cosine.shape == (3, 9, 9)


DIVERGED = {
    "the embedding": (
        "embeddings.norm.scale",
        ...,
        np.inf,
        r"the embedding is not finite .* parameter embeddings.norm.scale",
    ),
    "queries overflow": (
        "blocks.attn.query.kernel",
        0,
        1e39,
        r"layer 1, query is not finite .* blocks.attn.query.kernel",
    ),
    "an MLP overflows": (MLP, 1, 1e25, r"layer 2, mlp is not finite for sentence 1; .* float32 is 3.4e\+38"),
    "a variance overflows": ("blocks.down.kernel", 1, 1e30, "layer 2, std_mlp is not finite for sentence 1"),
    "NaN": ("blocks.attn.value.bias", 1, np.nan, r"layer 2, value is not finite .* parameter blocks.attn.value.bias"),
}


@pytest.mark.compatibility("long", "diagnose of a model that has diverged", "the first layer and array is named", was=2)
@pytest.mark.parametrize("case", DIVERGED)
def test_a_diverged_model_is_refused_by_its_first_array(case, found):
    name, layer, factor, message = DIVERGED[case]
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        bad = with_factor(model, name, layer, factor)
        with pytest.raises(DivergedError, match=message):
            jaxsmooth.diagnose(bad, tokenizer, TEXTS, **SMALL)


@pytest.mark.compatibility(
    "long", "diagnose of a float16 model whose numbers leave its range", "says so, and the range", was=2
)
@pytest.mark.long
def test_a_model_in_a_narrow_dtype_is_refused_by_its_first_array():
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        narrow = jax.tree.map(lambda leaf: leaf.astype("float16"), with_factor(model, MLP, 1, 1e4))
        with pytest.raises(DivergedError, match=r"layer 2, mlp .* largest number of float16 is 6.55e\+04"):
            jaxsmooth.diagnose(narrow, tokenizer, TEXTS, **SMALL)


def test_the_sentence_that_diverges_is_named(found):
    with precision("float32"):
        model, tokenizer = jaxsmooth.load("tiny")
        [rare] = set(tokenizer(["2"]).tokens[0].tolist()) - set(tokenizer(["b"]).tokens[0].tolist())
        word = model.embeddings.word.at[rare].set(np.nan)
        bad = dataclasses.replace(model, embeddings=dataclasses.replace(model.embeddings, word=word))
        with pytest.raises(
            DivergedError, match=f"the embedding is not finite for sentence {TEXTS.index('2 b or not 2 b') + 1};"
        ):
            jaxsmooth.diagnose(bad, tokenizer, TEXTS, **SMALL)
