"""Every extension point of docs/extending.md, used from outside the package by what is public."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors
from support import ROOT

import jaxsmooth
from jaxsmooth import Edits, FinetuneConfig, interventions, report, theory
from jaxsmooth.errors import ConfigError, DataError, OptionError
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.mitigations import chosen_remedies, parse_remedies
from jaxsmooth.training.data.catalogue import Entry, load_task
from jaxsmooth.training.data.splits import Parts
from jaxsmooth.training.data.tasks import Sentence, Task

TEXTS = ["A film worth seeing, if only once.", "Dull.", "So so, I say."]
CONFIG = jaxsmooth.EncoderConfig(vocab=TINY_VOCAB, width=16, layers=2, heads=2, mlp_width=16, max_length=64)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of two small layers, its tokenizer, and the folder they lie in."""
    model, tokenizer = jaxsmooth.init_encoder(CONFIG, jax.random.key(0), dtype=jnp.float32), Tokenizer.tiny(CONFIG)
    folder = tmp_path_factory.mktemp("model") / "small"
    jaxsmooth.save(model, folder)
    tokenizer.save(folder)
    return model, tokenizer, folder


def longest(hidden, mask):
    """The length of the longest token, [B]."""
    return jnp.max(jnp.where(mask, jnp.sqrt(jnp.sum(hidden * hidden, axis=-1)), 0), axis=1)


@pytest.mark.parametrize("fusion", [None, pytest.param("max", marks=pytest.mark.long)])
def test_a_metric_is_kept_like_the_librarys_own(small, fusion):
    model, tokenizer, _ = small
    found = jaxsmooth.diagnose(model, tokenizer, TEXTS, metrics={"longest": longest}, fusion=fusion, each_text=True)
    batch = tokenizer(TEXTS)
    hidden = np.concatenate([jaxsmooth.embed(model, batch)[None], jaxsmooth.encode(model, batch)[1].hidden])
    lengths = np.where(np.asarray(batch.mask), np.linalg.norm(hidden, axis=-1), 0).max(axis=-1)  # [L+1 B]
    np.testing.assert_allclose(found.metrics["longest"].mean, lengths.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.metrics["longest"].max, lengths.max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.texts.values["own/longest"], lengths, rtol=1e-5)
    np.testing.assert_allclose(found.each.of("own/longest"), lengths, rtol=1e-5)
    for name in ("actual", "L5", "L0", "mixing_rate", "std_mlp", "effective_rank"):
        spread = found.rates[name] if name in found.rates else getattr(found, name)
        np.testing.assert_allclose(found.each.of(name).mean(axis=-1), spread.mean, rtol=1e-12)
    assert found.each.of("tokens").tolist() == [np.asarray(batch.mask).sum(axis=1).tolist()]
    layers = report.to_json(found)["layers"]
    assert [layer["metrics"]["longest"] for layer in layers] == found.metrics["longest"].mean.tolist()
    assert layers[1]["spread"]["metrics"]["longest"]["max"] == found.metrics["longest"].max[1]
    assert "own/longest_2" in report.texts.texts_csv(found.texts).splitlines()[0]
    if fusion:
        assert ">longest</th>" in report.render_page(found)
        fused = np.asarray(jnp.max(hidden[1:], axis=0))
        expected = np.where(np.asarray(batch.mask), np.linalg.norm(fused, axis=-1), 0).max(axis=-1).mean()
        assert report.to_json(found)["fused"]["metrics"]["longest"] == pytest.approx(expected, rel=1e-5)


def sharpest(trace, mask):
    """The largest weight of any head, [B]."""
    return jnp.max(jnp.where(mask[:, None, :, None], trace.attn, 0), axis=(1, 2, 3))


def test_a_metric_of_a_block(small):
    model, tokenizer, _ = small
    metrics = {"longest": longest, "sharpest": jaxsmooth.BlockMetric(sharpest)}
    found = jaxsmooth.diagnose(model, tokenizer, TEXTS, metrics=metrics, fusion="max", each_text=True)
    batch = tokenizer(TEXTS)
    real = np.asarray(batch.mask)[None, :, None, :, None]
    largest = np.where(real, jaxsmooth.encode(model, batch)[1].attn, 0).max(axis=(2, 3, 4))  # [L B]
    np.testing.assert_allclose(found.texts.values["own/sharpest"][1:], largest, rtol=1e-5)
    assert np.isnan(found.metrics["sharpest"].mean[0])
    written = report.to_json(found)
    assert written["layers"][0]["metrics"]["sharpest"] is None
    assert set(written["fused"]["metrics"]) == {"longest"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda trace: 0, "must be a function (trace, mask)"),
        (lambda trace, mask: trace.nothing, "fails"),
        (lambda trace, mask: trace.std_attn, "one number per sentence"),
        (lambda trace, mask: trace.hidden.max((1, 2)), "depends on padding"),
    ],
)
def test_a_wrong_metric_of_a_block_is_refused(small, text, message):
    model, tokenizer, _ = small
    with pytest.raises(OptionError, match=re.escape(message)):
        jaxsmooth.diagnose(model, tokenizer, TEXTS, metrics={"mine": jaxsmooth.BlockMetric(text)})


def test_a_remedy_is_compared(small):
    model, tokenizer, _ = small
    found = jaxsmooth.compare(model, tokenizer, TEXTS, {"off": lambda model, batch: interventions.scale("mixed", 0.0)})
    none, off = found.entries
    assert (none.label, off.label, off.description) == ("none", "off", "off (the user's own)")
    np.testing.assert_allclose(off.attribution.mean[:, 0], 0, atol=1e-6)  # attention adds nothing
    assert np.abs(none.attribution.mean[:, 0]).min() > 1e-5
    assert [entry["label"] for entry in report.comparison_json(found)["remedies"]] == ["none", "off"]


def test_remedies_are_edits_functions_or_names(small):
    model, tokenizer, _ = small
    edits = Edits(hidden=lambda layer, hidden: hidden)
    found = chosen_remedies({"edits": edits, "function": lambda model, batch: edits, "weak": "contranorm:0.05"})
    assert [one.label for one in found] == ["edits", "function", "weak"]
    assert all(one.edits(model, tokenizer(TEXTS)) is edits for one in found[:2])
    assert found[2].description == "contranorm(s=0.05, temperature=1)"
    assert chosen_remedies(parse_remedies("neutreno,gfsa")) == chosen_remedies("neutreno,gfsa")


@theory.own_theorem("my_diameter", "made up", needs="head")
def my_diameter(q):
    """D(A X) <= 2 D(X)."""
    return theory.Statement(q.c.diameter(q.mixed), q.c.number(2.0) * q.diameter)


@theory.own_theorem("my_mistake", "made up, and wrong", needs="block")
def my_mistake(q):
    """D(X) <= D(X) / 2."""
    return theory.Statement(q.diameter, q.diameter / q.c.number(2.0))


@theory.own_theorem("my_norm", "made up", needs="norm")
def my_norm(q):
    """d_M(LN H) <= G d_M(H) / (the smallest std)."""
    return theory.Statement(q.normed, q.gain * q.c.distance(q.hidden) / q.c.least(q.stds))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_theorem_is_checked(small, compiled, monkeypatch):
    monkeypatch.setattr("jaxsmooth.studies.verify.WORTH_COMPILING", 0 if compiled else np.inf)
    model, tokenizer, _ = small
    asked = [my_diameter, my_mistake, my_norm, "dobrushin1956_diameter"]
    found = jaxsmooth.verify(model, tokenizer, TEXTS[:2], theorems=asked)
    names = [row.theorem for row in found.theorems]
    assert names == ["dobrushin1956_diameter", "my_diameter", "my_mistake", "my_norm_attn", "my_norm_mlp"]
    counts = {row.theorem: row.counts for row in found.theorems}
    assert counts["my_diameter"] == {"CONFIRMED": 8, "VIOLATED": 0, "UNDECIDED": 0, "NOT_APPLICABLE": 0}
    assert counts["my_mistake"]["VIOLATED"] == 4
    assert counts["my_norm_attn"]["CONFIRMED"] == counts["my_norm_mlp"]["CONFIRMED"] == 4
    assert found.violated
    assert found.theorems[1].source == "made up"
    assert "my_diameter" not in theory.theorems.THEOREMS  # nothing is left behind


def test_a_theorem_that_is_none_is_refused(small):
    model, tokenizer, _ = small
    with pytest.raises(OptionError, match="needs a name that no other has; got 'dobrushin1956_diameter'"):
        theory.own_theorem("dobrushin1956_diameter", "made up", needs="head")
    nothing = theory.own_theorem("mine", "made up", needs="block")(lambda q: q.diameter)
    with pytest.raises(OptionError, match="'mine' must return a Statement"):
        jaxsmooth.verify(model, tokenizer, TEXTS[1:2], theorems=[nothing])
    with pytest.raises(OptionError, match="theorems need names of their own"):
        jaxsmooth.verify(model, tokenizer, TEXTS[1:2], theorems=[my_norm, my_norm])


def moods(folder):
    words = {0: ("dull", "slow", "flat"), 1: ("fine", "warm", "keen")}
    rows = [Sentence(f"a {word} film {number}", label=k) for k in words for word in words[k] for number in range(4)]
    return Parts({"train": rows, "validation": rows[::3], "test": rows[::5]})


MOODS = Entry(
    Task("moods", "classification", "accuracy", source="made up", licence="none", classes=("dull", "fine")), moods
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_task_and_a_remedy_are_trained_with(small, tmp_path):
    *_, folder = small
    own = {
        "remedies": {"sharper": lambda model, batch: interventions.scale("attn_logits", 2.0)},
        "tasks": {"moods": MOODS},
    }
    settings = {"model": str(folder), "task": "moods", "remedy": "sharper", "batch_size": 8, "max_length": 16}
    config = FinetuneConfig(**settings, steps=4, log_every=2, probe=2, logger="none", out=tmp_path / "run")
    records = []
    done = jaxsmooth.finetune(config, log=lambda step, numbers: records.append((step, set(numbers))), **own)
    assert done.steps == 4
    assert (2, "train/loss") in {(step, name) for step, names in records for name in names}
    assert any("validation/accuracy" in names for _, names in records)
    again = jaxsmooth.evaluate(tmp_path / "run", "validation", **own)["scores"]
    assert again == pytest.approx(done.scores)
    # what is exported knows its task, and asks for the remedy
    best = str(tmp_path / "run" / "best")
    found = jaxsmooth.predict(best, ["a dull film", "a keen film"], remedies=own["remedies"])
    assert [set(row["probabilities"]) for row in found] == 2 * [{"dull", "fine"}]
    plain = jaxsmooth.predict(best, ["a dull film"], remedies={"sharper": Edits()})
    assert plain[0]["probabilities"] != found[0]["probabilities"]
    with pytest.raises(OptionError, match=r"no remedy 'sharper'.*remedies=\{name: edits\}"):
        jaxsmooth.predict(best, ["a dull film"])
    with pytest.raises(DataError, match="no task 'moods'"):
        jaxsmooth.evaluate(tmp_path / "run", "validation", remedies=own["remedies"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metric": "glory"},
            "the metric of a classification must be one of accuracy, f1, matthews; got 'glory'",
        ),
        ({"kind": "guess"}, "expected a Task of kind classification, regression"),
        ({"classes": ()}, "needs two classes at least"),
        ({"pairs": True}, "example 0 of train: the task says pairs=True; got pair=None"),
        ({"kind": "choice", "choices": 2}, "example 0 of train: a choice has examples of class Choice; got Sentence"),
        ({"classes": ("dull", "fine", "odd"), "metric": "f1"}, ""),
    ],
)
def test_a_task_that_does_not_fit_is_refused(change, message):
    tokenizer, short = Tokenizer.tiny(CONFIG), 16
    entry = Entry(Task(**{**vars(MOODS.task), **change}), moods)
    if not message:
        assert len(load_task("moods", tokenizer, split="train", max_length=short, tasks={"moods": entry})) == 24
        return
    with pytest.raises(DataError, match=message):
        load_task("moods", tokenizer, split="train", tasks={"moods": entry})


def test_data_of_a_task_that_do_not_fit_are_refused():
    tokenizer = Tokenizer.tiny(CONFIG)
    for data, message in (
        ({"training": []}, "examples by split, some of train, validation, test"),
        (
            {"train": [Sentence("a", label=2)]},
            "0 of train: the label must be a class from 0 to 1, or None; got 2",
        ),
        ({"train": [Sentence("a", label=0), Sentence(3, label=0)]}, "example 1 of train: texts must be strings"),
    ):
        entry = Entry(MOODS.task, lambda folder, data=data: data)  # a mapping does where nothing is noted
        with pytest.raises(DataError, match=message):
            load_task("moods", tokenizer, split="train", tasks={"moods": entry})
    with pytest.raises(DataError, match="under a name that no other has; got 'tweets'"):
        load_task("tweets", tokenizer, split="train", tasks={"tweets": MOODS})


def test_a_family_is_registered(small, tmp_path):
    model, tokenizer, folder = small
    # The same encoder in files with other names of keys and tensors.
    settings = json.loads((folder / "config.json").read_text())
    settings = {"d_model" if key == "hidden_size" else key: value for key, value in settings.items()}
    settings |= {"model_type": "housebert", "architectures": ["HouseBertModel"]}
    tensors = {
        name.replace("encoder.layer.", "blocks."): tensor
        for name, tensor in safetensors.load_file(folder / "model.safetensors").items()
    }
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    safetensors.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"model_type must be one of .*; got 'housebert'"):
        jaxsmooth.load(tmp_path)
    keys = {**jaxsmooth.checkpoints.families.FAMILIES["bert"].keys, "width": "d_model"}
    undo = jaxsmooth.register_family(
        "housebert", family={"architecture": "HouseBertModel", "keys": keys}, names={"encoder.layer.": "blocks."}
    )
    try:
        read, its = jaxsmooth.load(tmp_path)
        batch = its(TEXTS)
        assert read.config.family == "housebert"
        np.testing.assert_array_equal(jaxsmooth.encode(read, batch)[0], jaxsmooth.encode(model, batch)[0])
        jaxsmooth.save(read, tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["d_model"] == CONFIG.width
        written = safetensors.load_file(tmp_path / "again" / "model.safetensors")
        assert written.keys() == tensors.keys()
        assert all((written[name] == tensors[name]).all() for name in tensors)
    finally:
        undo()
    with pytest.raises(ConfigError, match="model_type must be one of"):
        jaxsmooth.load(tmp_path)
    with pytest.raises(ConfigError, match="a model_type that no other has; got 'bert'"):
        jaxsmooth.register_family("bert")
    with pytest.raises(ConfigError, match=r"a family has the fields architecture, keys.*; got kys"):
        jaxsmooth.register_family("housebert", family={"kys": {}})


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_examples_of_the_page_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict = {}
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for block in blocks:
            exec(compile(block, "docs/extending.md", "exec"), names)
    assert len(blocks) == 7
    assert names["verified"].theorems[1].counts["VIOLATED"] == 0
    assert names["done"].steps == 4
    assert capsys.readouterr().out.splitlines()[-1] == "pre"
