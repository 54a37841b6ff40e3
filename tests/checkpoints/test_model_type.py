"""A config.json without `model_type`: the class it names decides, else the tensors; what is open is asked for."""

import pytest
from support.checkpoint import assert_same_bits
from support.model_folders import config, folder, prefixed, small, tensors

import jaxsmooth
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.model_type import family_of_class, family_of_tensors
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.errors import ConfigError

UNNAMED = {"model_type": None, "architectures": None}


@pytest.mark.compatibility("loading", "config.json without model_type", "by `architectures`", was=3)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_class_names_the_family(family):
    stem = FAMILIES[family].architecture.removesuffix("Model")
    for ending in ("Model", "ForMaskedLM", "ForSequenceClassification", "LMHeadModel", "PreTrainedModel"):
        assert family_of_class({"architectures": [stem + ending]}) == family


@pytest.mark.parametrize("classes", [None, [], ["ViTMAEForPreTraining"], ["BertGenerationEncoder"], ["My"], [3], "x"])
def test_a_class_of_no_family_names_none(classes):
    assert family_of_class({"architectures": classes}) is None


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_a_model_is_loaded_by_the_class_it_names(family, tmp_path):
    loaded, _ = jaxsmooth.load(folder(tmp_path, tensors(family), config(family, model_type=None)))
    assert loaded.config == small(family).config


@pytest.mark.compatibility("loading", "config.json without model_type and architectures", "by the tensors", was=3)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tensors_name_the_family(family):
    names = list(prefixed(tensors(family), NAMES[family].prefix))
    assert family_of_tensors({}, names) == ("roberta" if "roberta" in NAMES[family].prefix else family)


def test_a_model_is_loaded_by_its_tensors(tmp_path):
    loaded, _ = jaxsmooth.load(folder(tmp_path / "bare", tensors(), config(**UNNAMED)))
    assert_same_bits(loaded, small())
    wrapped = prefixed(tensors("roberta"), "module.roberta.")
    loaded, _ = jaxsmooth.load(folder(tmp_path / "roberta", wrapped, config("roberta", **UNNAMED)))
    assert_same_bits(loaded, small("roberta"))


@pytest.mark.compatibility("loading", "DPR's encoders (model_type dpr)", "the BERT in them", was=3)
@pytest.mark.parametrize("prefix", ["question_encoder.", "ctx_encoder.", "span_predictor.encoder."])
def test_dprs_encoders_are_berts(prefix, tmp_path):
    loaded, _ = jaxsmooth.load(folder(tmp_path, prefixed(tensors(), f"{prefix}bert_model."), config(model_type="dpr")))
    assert loaded.config.family == "bert"
    assert_same_bits(loaded, small())


@pytest.mark.compatibility("loading", "no model_type, tensors of BERT or of RoBERTa", "refused, naming both", was=4)
@pytest.mark.parametrize("family", ["roberta", "electra"])
def test_what_the_tensors_leave_open_is_asked_for(family, tmp_path):
    hf = config(family, **UNNAMED) | ({"embedding_size": 6} if family == "electra" else {})
    weights = {name: tensor for name, tensor in tensors("bert").items() if "pooler" not in name}
    with pytest.raises(
        ConfigError, match=r'no model_type, and the tensors may be of bert, roberta.*: add "model_type"'
    ):
        jaxsmooth.load(folder(tmp_path, weights, hf))


@pytest.mark.compatibility("loading", "no model_type, tensors of no known family", "refused, naming them", was=4)
def test_tensors_of_no_family_are_named(tmp_path):
    weights = {"conv.kernel": tensors()["embeddings.LayerNorm.bias"]}
    with pytest.raises(ConfigError, match=r"tensors, as \['conv.kernel'\], are those of none of \('bert'"):
        jaxsmooth.load(folder(tmp_path, weights, config(**UNNAMED)))


@pytest.mark.compatibility("loading", "model_type of a family that is not read (t5, deberta-v2)", "refused", was=0)
@pytest.mark.parametrize("model_type", ["t5", "deberta-v2", "llama", "xlnet", "", 3])
def test_another_family_is_refused_with_those_that_are_read(model_type, tmp_path):
    with pytest.raises(ConfigError, match=r"config.json: model_type must be one of \('bert', 'roberta', .*; got "):
        jaxsmooth.load(folder(tmp_path, tensors(), config(model_type=model_type)))


@pytest.mark.compatibility("loading", "bert_config.json for config.json", "refused: give it that name", was=4)
def test_a_configuration_under_another_name_is_pointed_at(tmp_path):
    folder(tmp_path, prefixed(tensors(), "bert."), config(**UNNAMED)).joinpath("config.json").rename(
        tmp_path / "bert_config.json"
    )
    with pytest.raises(
        ConfigError, match=r"config.json does not exist; .* If bert_config.json is the model's, give it"
    ):
        jaxsmooth.load(tmp_path)
    (tmp_path / "bert_config.json").rename(tmp_path / "config.json")
    assert_same_bits(jaxsmooth.load(tmp_path)[0], small())


@pytest.mark.compatibility("loading", "weights without config.json", "refused, with folders that have one", was=0)
def test_a_missing_configuration_is_said(tmp_path):
    folder(tmp_path, tensors(), None)
    folder(tmp_path / "checkpoint-500", tensors(), config())
    with pytest.raises(ConfigError, match=r"config.json does not exist; .* in its folders checkpoint-500: load one"):
        jaxsmooth.load(tmp_path)
