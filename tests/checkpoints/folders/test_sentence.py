"""Folders of sentence-transformers: the encoder is found, and cuts and lower-cases as they say."""

import fnmatch
import json
import shutil
import sys

import pytest
from support.checkpoint import assert_same_bits
from support.model_folders import config, folder, small, tensors

import jaxsmooth
from jaxsmooth.checkpoints.folders.sentence import Sentence, read_sentence
from jaxsmooth.checkpoints.tensors import CheckpointWarning
from jaxsmooth.errors import CheckpointError, ConfigError

TYPES = "sentence_transformers.models."
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "A", "b", "[MASK]", "c"])
CASED = json.dumps({"do_lower_case": False})


def root(place, encoder="0_Transformer", settings=None, kind="Transformer", prompts=None, name="bert", **files):
    """A root whose modules are an encoder, pooling, a dense layer and a norm."""
    steps = [(encoder, kind), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    modules = [
        {"idx": k, "name": str(k), "path": path, "type": f"{TYPES}{kind}"} for k, (path, kind) in enumerate(steps)
    ]
    folder(place, None, None, modules__json=json.dumps(modules))
    if prompts is not None:
        (place / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    settings = {f"sentence_{name}_config__json": json.dumps(settings)} if settings is not None else {}
    files = {"vocab__txt": VOCABULARY, "tokenizer_config__json": CASED, **settings, **files}
    folder(place / encoder, tensors(), config(), **files)
    folder(place / "1_Pooling", None, None, config__json=json.dumps({"pooling_mode_mean_tokens": True}))
    return place


@pytest.mark.compatibility("loading", "a sentence-transformers root with 0_Transformer", "the encoder is read", was=3)
@pytest.mark.compatibility("loading", "a sentence-transformers root with its encoder in it", "read", was=0)
@pytest.mark.parametrize(
    ("encoder", "kind"), [("0_Transformer", "Transformer"), ("0_BERT", "BERT"), ("", "Transformer")]
)
def test_the_encoder_is_found(encoder, kind, tmp_path):
    loaded, tokenizer = jaxsmooth.load(root(tmp_path, encoder, kind=kind))
    assert_same_bits(loaded, small())
    assert tokenizer(["a A"], length=4).tokens.tolist() == [[2, 4, 5, 3]]
    model, head, _ = jaxsmooth.load_with_head(with_head(tmp_path / encoder) and tmp_path)
    assert (model.config, head.kind) == (loaded.config, "masked_lm")


@pytest.mark.compatibility(
    "loading", "a sentence-transformers root of before 0.4 (config.json of its own)", "read", was=3
)
def test_a_config_of_the_root_is_not_the_encoders(tmp_path):
    folder(root(tmp_path), None, {"__version__": "0.3.9"})
    assert_same_bits(jaxsmooth.load(tmp_path)[0], small())


def with_head(place):
    import numpy as np
    from support.checkpoint import rewrite, set_config

    stem = "cls.predictions.transform"
    extra = {f"{stem}.dense.weight": (6, 6), f"{stem}.LayerNorm.weight": (6,), f"{stem}.LayerNorm.bias": (6,)}
    rewrite(place, lambda t: t | {name: np.ones(shape, np.float32) for name, shape in extra.items()})
    set_config(place, architectures=["BertForMaskedLM"])
    return True


@pytest.mark.compatibility("loading", "max_seq_length of sentence_bert_config.json", "texts are cut there", was=1)
@pytest.mark.parametrize("encoder", ["0_Transformer", ""])
@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_texts_are_cut_at_max_seq_length(encoder, name, tmp_path):
    _, tokenizer = jaxsmooth.load(root(tmp_path, encoder, {"max_seq_length": 5, "do_lower_case": False}, name=name))
    with pytest.warns(jaxsmooth.inputs.tokenizer.TruncationWarning, match="cut to 5 tokens"):
        assert tokenizer(["a b c a b c"]).mask.sum() == 5
    (batch,) = tokenizer.batches(["a b c a b c"])
    assert (batch.batch.mask.sum(axis=1).max(), batch.truncated) == (5, 1)
    assert tokenizer(["a b c a b c"], length=8).mask.sum() == 8  # a length that is asked for counts
    assert tokenizer.max_length == 5


def test_of_an_asset_every_position_is_used(cache):
    _, tokenizer = jaxsmooth.load(root(cache / "assets" / "some-model", "", {"max_seq_length": 5}))
    assert tokenizer.max_length == 8


def test_a_longer_max_seq_length_than_the_models_is_the_models(tmp_path):
    assert jaxsmooth.load(root(tmp_path, settings={"max_seq_length": 512}))[1].max_length == 8


@pytest.mark.compatibility("loading", "do_lower_case of sentence_bert_config.json", "texts are lower-cased", was=1)
@pytest.mark.parametrize("lower", [True, False])
def test_texts_are_lower_cased_where_the_settings_say_so(lower, tmp_path):
    _, tokenizer = jaxsmooth.load(root(tmp_path, settings={"max_seq_length": None, "do_lower_case": lower}))
    assert tokenizer(["a A"], length=4).tokens.tolist() == [[2, 4, 4 if lower else 5, 3]]


@pytest.mark.compatibility("loading", "pooling, Dense, Normalize, prompts", "said by `read_sentence`", was=4)
def test_what_surrounds_the_encoder_is_said(tmp_path):
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    place = root(tmp_path, settings={"max_seq_length": 5}, prompts=prompts)
    expected = Sentence(5, False, ("Pooling (mean_tokens)", "Dense", "Normalize"), {"query": "query: "}, None)
    assert read_sentence(place) == read_sentence(place / "0_Transformer") == expected
    assert read_sentence(place / "1_Pooling") == Sentence()
    jaxsmooth.load(place)  # without a warning


@pytest.mark.compatibility("loading", "a default prompt of sentence-transformers", "a warning: not applied", was=4)
def test_a_default_prompt_is_warned_of(tmp_path):
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    with pytest.warns(CheckpointWarning, match=r"puts the prompt 'query' \('query: '\) before every text"):
        jaxsmooth.load(root(tmp_path, prompts=prompts))


class FakeHub:
    """A repository on the hub, whose files are copied where the patterns allow."""

    def __init__(self, repository, cache):
        self.repository, self.cache = repository, cache

    def snapshot_download(self, name, allow_patterns):
        for file in self.repository.rglob("*"):
            place = str(file.relative_to(self.repository))
            if file.is_file() and any(fnmatch.fnmatch(place, pattern) for pattern in allow_patterns):
                (self.cache / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.cache / place)
        return str(self.cache)


@pytest.mark.compatibility("loading", "a hub model of sentence-transformers with 0_Transformer", "fetched", was=3)
def test_a_hub_model_with_its_encoder_one_deeper_is_fetched(tmp_path, monkeypatch):
    repository = root(tmp_path / "repository", settings={"max_seq_length": 5})
    (repository / "0_Transformer" / "pytorch_model.bin").write_bytes(b"a second copy that nobody needs")
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub(repository, tmp_path / "cache"))
    loaded, tokenizer = jaxsmooth.load("some/model")
    assert_same_bits(loaded, small())
    assert tokenizer.max_length == 5
    assert not (tmp_path / "cache" / "0_Transformer" / "pytorch_model.bin").exists()


@pytest.mark.compatibility("loading", "modules.json whose first module is no Transformer", "named", was=4)
def test_a_first_module_without_an_encoder_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"first module must be a Transformer; got '.*WordEmbeddings'"):
        jaxsmooth.load(root(tmp_path, "0_WordEmbeddings", kind="WordEmbeddings"))


@pytest.mark.parametrize(
    "modules",
    [
        "",
        "{}",
        "[]",
        "[3]",
        '[{"path": "..", "type": "a.Transformer"}]',
        '[{"path": "/", "type": "a.Transformer"}]',
        "[",
    ],
)
def test_bad_modules_are_refused(modules, tmp_path):
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(ConfigError, match=r"modules\.json"):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("settings", [{"max_seq_length": -1}, {"max_seq_length": "5"}, {"do_lower_case": "no"}, [3]])
def test_bad_settings_are_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match=r"sentence_bert_config\.json"):
        jaxsmooth.load(root(tmp_path, settings=settings))


def test_an_encoder_that_is_not_there_is_said(tmp_path):
    root(tmp_path).joinpath("0_Transformer").rename(tmp_path / "elsewhere")
    with pytest.raises(
        CheckpointError, match=r"modules.json says that the encoder lies in '0_Transformer', which is not"
    ):
        jaxsmooth.load(tmp_path)
