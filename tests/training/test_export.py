"""What an exported folder holds: for every kind and family the same bits back; what is missing or damaged is said."""

import dataclasses
import json
import os
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import yaml
from support.training import PLAIN, TASKS, drawn, to_arrays

import jaxsmooth
from jaxsmooth.bert.fusion import FUSIONS, WeightedFusion, fuse, init_fusion
from jaxsmooth.errors import CheckpointError, ConfigError
from jaxsmooth.inputs.normalizer import Normalizer
from jaxsmooth.inputs.tokenizer import TINY_VOCAB, Tokenizer
from jaxsmooth.inputs.vocabulary import Pieces, SpecialTokens
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.export import export_model, load_export, trained_fusion
from jaxsmooth.training.model import init_task_model
from jaxsmooth.training.run import build_model, prepare

SIZES = {"vocab": TINY_VOCAB, "width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "max_length": 16, "pad_token": 0}
CONFIG = jaxsmooth.EncoderConfig(**SIZES)
TOKENIZER = Tokenizer.tiny(CONFIG)
BERT_LIKE = ["bert", "distilbert", "electra", "modernbert"]


def shapes(encoder, task, config):
    return jax.eval_shape(lambda: build_model(config, encoder, task, None))


def trained(kind, config=CONFIG, fusion=""):
    def init():
        fused = init_fusion(fusion, config, jax.random.key(2)) if fusion else None
        encoder = jaxsmooth.init_encoder(config, jax.random.key(0))
        return init_task_model(encoder, TASKS[kind], jax.random.key(1), fusion=fused)

    return drawn(jax.eval_shape(init))


@pytest.mark.parametrize("family", BERT_LIKE)
@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_comes_back_in_every_family(kind, family, tmp_path):
    config = jaxsmooth.family_config(family, **SIZES)
    model = trained(kind, config)
    export_model(model, TASKS[kind], TOKENIZER, PLAIN, tmp_path, step=7)
    found = load_export(tmp_path, shapes)
    assert (found.task, found.config, found.step) == (TASKS[kind], PLAIN, 7)
    assert found.tokenizer.fingerprint == TOKENIZER.fingerprint
    before, after = to_arrays(model), to_arrays(found.model)
    pooled = kind not in ("span", "masked_lm") and model.head.reads == "pooler"
    assert set(after) == {name for name in before if pooled or ".pooler." not in name}
    if family == "modernbert":  # its first block has no norm before the attention, and reads none
        for arrays in (before, after):
            arrays |= {name: value[1:] for name, value in arrays.items() if "blocks.norm_attn" in name}
    assert all(after[name].tobytes() == before[name].tobytes() for name in after)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fused_models_come_back(fusion, tmp_path):
    """Their encoder is a checkpoint of its own; fusion and head lie beside it."""
    model, config = trained("classification", fusion=fusion), dataclasses.replace(PLAIN, fusion=fusion)
    export_model(model, TASKS["classification"], TOKENIZER, config, tmp_path)
    after, before = to_arrays(load_export(tmp_path, shapes).model), to_arrays(model)
    assert {name: value.tobytes() for name, value in after.items()} == {n: v.tobytes() for n, v in before.items()}
    encoder, _ = jaxsmooth.load(tmp_path)
    own = to_arrays(trained_fusion(str(tmp_path)))  # its config is read from the folder
    assert {f"fusion.{name}": value.tobytes() for name, value in own.items()} == {
        name: value.tobytes() for name, value in before.items() if name.startswith("fusion.")
    }
    with pytest.raises(CheckpointError, match="does not hold the arrays of the fusion") if own else nullcontext():
        trained_fusion(tmp_path, dataclasses.replace(encoder.config, width=24, layers=3, heads=2))
    assert all(np.array_equal(value, before[f"encoder.{name}"]) for name, value in to_arrays(encoder).items())


def test_a_fusion_of_some_layers_comes_back(tmp_path):
    """What is fused of two layers is the second alone: its weight, drawn as another number than 1, times its output."""
    config = dataclasses.replace(PLAIN, fusion="weights", fusion_layers="2")
    encoder = jaxsmooth.init_encoder(CONFIG, jax.random.key(0))
    model = drawn(shapes(encoder, TASKS["classification"], config))
    export_model(model, TASKS["classification"], TOKENIZER, config, tmp_path)
    fusion = trained_fusion(tmp_path)
    assert fusion.layers == (1,)
    hidden = np.stack([np.full((1, 3, 16), 5.0), np.ones((1, 3, 16))])
    np.testing.assert_allclose(fuse(fusion, hidden)[0], np.asarray(model.fusion.weight[0]) * hidden[1], rtol=1e-6)
    assert load_export(tmp_path, shapes).model.fusion.layers == (1,)


@pytest.mark.parametrize(
    ("settings", "goes_on"),
    [
        ({"fusion": "gate"}, True),
        ({"fusion": "gate", "exit_layer": 1}, False),
        ({"fusion": "gate", "fusion_layers": "2"}, False),
        ({"fusion": "weights"}, False),
    ],
)
def test_a_fusion_goes_on_in_a_run_that_starts_from_the_model(settings, goes_on, tmp_path):
    """The gates of a first phase are the second's to begin with; other layers or another fusion begin anew."""
    model = trained("masked_lm", fusion="gate")
    export_model(model, TASKS["masked_lm"], TOKENIZER, dataclasses.replace(PLAIN, fusion="gate"), tmp_path / "first")
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {k},{k % 2}\n" for k in range(40)))
    second = FinetuneConfig(task=str(tmp_path / "rows.csv"), model=str(tmp_path / "first"), max_length=16, **settings)
    begun = prepare(second).model.fusion
    assert type(begun) is (type(model.fusion) if settings["fusion"] == "gate" else WeightedFusion)
    assert np.array_equal(begun.weight, model.fusion.weight) == goes_on


def test_a_fusion_is_looked_for_where_the_model_is(tmp_path, monkeypatch):
    """By the name as `load` takes it: "~" and variables filled in, and "tiny" is never a folder."""
    export_model(
        trained("masked_lm", fusion="gate"),
        TASKS["masked_lm"],
        TOKENIZER,
        dataclasses.replace(PLAIN, fusion="gate"),
        tmp_path / "tiny",
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = {name: trained_fusion(name) is not None for name in ("~/tiny", "$HOME/tiny", "./tiny", "tiny", "none")}
    assert found == {"~/tiny": True, "$HOME/tiny": True, "./tiny": True, "tiny": False, "none": False}


def test_an_export_that_fuses_layers_it_lacks_is_refused(tmp_path):
    config = dataclasses.replace(PLAIN, fusion="gate", fusion_layers="9")
    export_model(trained("classification", fusion="gate"), TASKS["classification"], TOKENIZER, config, tmp_path)
    for read in (lambda: trained_fusion(tmp_path), lambda: load_export(tmp_path, shapes)):
        with pytest.raises(ConfigError, match="fusion_layers must end at layer 2 or before; got '9'"):
            read()


@pytest.mark.compatibility("saving", "finetune's export", "names of labels, problem_type, task and dropout used", was=1)
@pytest.mark.compatibility(
    "saving", "an export of a model that was a multi-label classifier", "the new task's keys", was=1
)
@pytest.mark.parametrize("kind", TASKS)
def test_an_export_says_how_it_was_trained(kind, tmp_path):
    read = {"problem_type": "multi_label_classification", "id2label": {str(k): f"old {k}" for k in range(5)}, "x": 1.0}
    model = trained(kind, dataclasses.replace(CONFIG, other_keys=json.dumps(read)))
    config = dataclasses.replace(PLAIN, hidden_dropout=0.3, attention_dropout=0.2, head_dropout=0.4)
    export_model(model, TASKS[kind], TOKENIZER, config, tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    assert [found[key] for key in rates] == [0.3, 0.2, 0.4]
    assert (found["finetuning_task"], found["x"]) == (TASKS[kind].name, 1.0)
    if kind == "classification":
        assert found["id2label"] == {"0": "a", "1": "b", "2": "c"}
        assert found["problem_type"] == "single_label_classification"
    if kind == "regression":
        assert (found["id2label"], found["problem_type"]) == ({"0": "value"}, "regression")
    assert "id2label" not in found or kind != "span"


@pytest.mark.parametrize("fusion", ["none", "max"])
def test_an_export_has_a_card_of_what_was_trained(fusion, tmp_path):
    config = dataclasses.replace(PLAIN, fusion=fusion, learning_rate=1.5e-4)
    model = trained("classification", fusion="" if fusion == "none" else fusion)
    export_model(model, TASKS["classification"], TOKENIZER, config, tmp_path / "best", step=7)
    _, head, rest = (tmp_path / "best" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    plain = fusion == "none"
    assert yaml.safe_load(head)["library_name"] == ("transformers" if plain else "jaxsmooth")
    assert "# best\n" in rest
    assert "`jaxsmooth predict FOLDER --data FILE`" in rest or plain
    facts = yaml.safe_load(rest.split("````yaml\n")[1].split("````")[0])
    assert (facts["step"], facts["classes"]) == (7, list(TASKS["classification"].classes))
    assert facts["settings other than the defaults"]["learning_rate"] == 1.5e-4
    assert ("fusion" in facts["settings other than the defaults"]) is not plain


def test_an_export_leaves_a_card_of_somebodys_own(tmp_path):
    (tmp_path / "README.md").write_text("My model.\n")
    export_model(trained("classification"), TASKS["classification"], TOKENIZER, PLAIN, tmp_path)
    assert (tmp_path / "README.md").read_text() == "My model.\n"


@pytest.mark.compatibility(
    "saving", "an export interrupted", "weights, tokenizer and settings of one step, or none", was=1
)
@pytest.mark.parametrize("fusion", ["", "max"])
def test_an_interrupted_export_leaves_one_generation(fusion, tmp_path, monkeypatch):
    first, second = trained("classification"), trained("classification", fusion=fusion)
    config = dataclasses.replace(PLAIN, fusion=fusion or "none")
    export_model(first, TASKS["classification"], TOKENIZER, PLAIN, tmp_path, step=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*arguments, **more):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            export_model(second, TASKS["classification"], TOKENIZER, config, tmp_path, step=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    replace = os.replace

    def interrupted(source, target):
        if Path(target) == tmp_path / "model.safetensors":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_model(second, TASKS["classification"], TOKENIZER, config, tmp_path, step=2)
    with pytest.raises(ConfigError, match=r"config\.json does not exist"):
        load_export(tmp_path, shapes)
    export_model(second, TASKS["classification"], TOKENIZER, config, tmp_path, step=2)
    found = load_export(tmp_path, shapes)
    assert (found.step, (tmp_path / "head.safetensors").exists()) == (2, bool(fusion))


def test_what_is_not_whole_is_refused(tmp_path):
    model = trained("classification")
    export_model(model, TASKS["classification"], TOKENIZER, PLAIN, tmp_path)
    written = (tmp_path / "finetune.json").read_text()
    (tmp_path / "finetune.json").write_text("{}")
    with pytest.raises(CheckpointError, match="must hold task, config and step"):
        load_export(tmp_path, shapes)
    changed = json.loads(written)
    changed["config"]["prayer"] = 1
    (tmp_path / "finetune.json").write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match="no setting 'prayer'"):
        load_export(tmp_path, shapes)
    (tmp_path / "finetune.json").write_text(written)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_export(tmp_path, shapes)
    TOKENIZER.save(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"head\.safetensors cannot be read"):
        load_export(tmp_path, shapes)


def test_a_sentencepiece_tokenizer_is_read_as_it_was_saved(tmp_path):
    """Prefix and replacements too, and the special tokens that are not BERT's."""
    words = ("<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "▁q", "u", "e", "r", "y", ":")
    pieces = Pieces(words, tuple(-1.0 - k for k in range(len(words))), 0, 2, 1, 3, {0x2126: "ab", ord("b"): "u"})
    config = jaxsmooth.EncoderConfig(vocab=len(words), width=8, layers=1, heads=1, mlp_width=8, max_length=32)
    tokenizer = Tokenizer.from_pieces(pieces, config, "pieces", prefix="query: ")
    tokenizer.save(tmp_path)
    again = Tokenizer.from_dir(tmp_path, config)
    texts = ["ab", "Ωa", "b b"]
    assert [row.ids for row in again.rows(texts, length=32)] == [row.ids for row in tokenizer.rows(texts, length=32)]
    assert again.pad_id == tokenizer.pad_id
    (tmp_path / "preparation.json").write_text("[]")
    with pytest.raises(jaxsmooth.errors.TextError, match="must hold special, prefix and replacements"):
        Tokenizer.from_dir(tmp_path, config)


def test_replacements_are_made_at_once():
    assert Normalizer(SpecialTokens("", "", "", ""), "a", {ord("a"): "b", ord("b"): "c"})("ab") == "bbc"
