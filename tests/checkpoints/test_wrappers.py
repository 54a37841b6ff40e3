"""Names of tensors behind wrappers: known ones are taken off in any nesting, others are named in the refusal."""

import numpy as np
import pytest
from support.checkpoint import assert_same_bits
from support.limits import limits
from support.model_folders import config, folder, prefixed, small, tensors

import jaxsmooth
from jaxsmooth.checkpoints.amiss import what_is_there
from jaxsmooth.checkpoints.families import FAMILIES
from jaxsmooth.checkpoints.names import NAMES
from jaxsmooth.checkpoints.tensors import CheckpointWarning
from jaxsmooth.checkpoints.wrappers import families_of, sort_names
from jaxsmooth.errors import CheckpointError

NESTS = (
    *("", "{own}", "module.", "_orig_mod.", "{own}{own}", "encoder.{own}", "0.auto_model.", "model.", "transformer."),
    *("auto_model.", "base_model.model.{own}", "encoder.model.", "module.{own}", "_orig_mod.module.{own}", "backbone."),
    *("model.0.auto_model.", "_fsdp_wrapped_module.model.", "{own}_orig_mod.", "module.module.encoder.{own}", "base."),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_names_are_found_in_any_nesting(family):
    plain = list(tensors(family))
    for nest in NESTS:
        wrapped = {nest.format(own=NAMES[family].prefix) + name: name for name in plain}
        found = sort_names(wrapped, family)
        assert found.own == wrapped
        assert list(map(len, found)) == [len(plain), 0, 0, 0]


@pytest.mark.compatibility("loading", "names behind `module.`, `bert.bert.`, `encoder.bert.`", "taken off", was=3)
@pytest.mark.compatibility("loading", "names behind `0.auto_model.` or `auto_model.`", "taken off", was=3)
@pytest.mark.compatibility("loading", "names behind `_orig_mod.` (torch.compile)", "taken off", was=3)
@pytest.mark.compatibility("loading", "names behind `base_model.model.` (a merged PEFT model)", "taken off", was=3)
@pytest.mark.compatibility("loading", "names behind `model.`, `transformer.`, `backbone.`", "taken off", was=3)
@pytest.mark.parametrize("nest", ["bert.bert.", "base_model.model.bert.", "_orig_mod.module.model.0.auto_model."])
def test_wrapped_weights_are_the_same_model(nest, tmp_path):
    loaded, _ = jaxsmooth.load(folder(tmp_path, prefixed(tensors(), nest), config()))
    assert_same_bits(loaded, small())


@pytest.mark.compatibility("loading", "wrappers between the layers' names (FSDP, compiled layers)", "taken off", was=3)
@pytest.mark.parametrize("segment", ["_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"])
def test_wrappers_of_single_layers_are_taken_off(segment, tmp_path):
    inside = {f"bert.{name}".replace("layer.1.", f"layer.1.{segment}."): t for name, t in tensors().items()}
    assert_same_bits(jaxsmooth.load(folder(tmp_path, inside, config()))[0], small())


@pytest.mark.compatibility("loading", "half of the names behind `bert.`, half without", "read", was=0)
@pytest.mark.compatibility("loading", "the encoder behind `bert.`, its head outside", "read", was=0)
def test_prefixes_may_be_mixed(tmp_path):
    mixed = {("bert." if k % 2 else "module.") + name: t for k, (name, t) in enumerate(tensors().items())}
    mixed |= {"cls.predictions.bias": np.zeros(9, np.float32), "module.classifier.weight": np.zeros((2, 6), np.float32)}
    assert_same_bits(jaxsmooth.load(folder(tmp_path, mixed, config()))[0], small())


@pytest.mark.compatibility("loading", "norms called gamma and beta, in every family", "read", was=3)
@pytest.mark.parametrize("family", ["albert", "distilbert", "mpnet", "gpt2"])
def test_old_names_of_norms_are_read(family, tmp_path):
    norms = ("orm.", "norm.", "ln_1.", "ln_2.", "ln_f.")
    old = {}
    for name, tensor in tensors(family).items():
        stem, _, last = name.rpartition(".")
        is_norm = f"{stem}.".lower().endswith(norms)
        old[f"{stem}.{'gamma' if last == 'weight' else 'beta'}" if is_norm else name] = tensor
    assert any("gamma" in name for name in old)
    assert_same_bits(jaxsmooth.load(folder(tmp_path, old, config(family)))[0], small(family))


@pytest.mark.compatibility("loading", "an extra `linear.weight` (ColBERT)", "left out, with a warning", was=3)
@pytest.mark.compatibility("loading", "an extra `crf.transitions` (taggers)", "left out, with a warning", was=3)
@pytest.mark.compatibility("loading", "an unknown integer buffer in a layer", "left out, with a warning", was=3)
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("linear.weight", np.zeros((4, 6), np.float32)),
        ("crf.transitions", np.zeros((3, 3), np.float32)),
        ("module.lstm.weight_ih_l0", np.zeros((3, 3), np.float16)),
        ("encoder.layer.0.attention.self.seen", np.zeros(3, np.int64)),
        ("other.embeddings.word_embeddings.weight", np.zeros((3, 3), np.float32)),
    ],
)
def test_what_is_no_part_of_the_encoder_is_left_out_with_a_warning(name, array, tmp_path):
    place = folder(tmp_path, prefixed(tensors(), "bert.") | {name: array}, config())
    with pytest.warns(CheckpointWarning, match=f"tensor '{name}' is no part of the encoder, and is left out"):
        loaded, _ = jaxsmooth.load(place)
    assert_same_bits(loaded, small())


@pytest.mark.compatibility("loading", "buffers of older versions (rotary inv_freq, position_ids)", "left out", was=3)
def test_known_buffers_are_left_out_in_silence(tmp_path):
    buffers = ("encoder.layer.0.attention.self.rotary_emb.inv_freq", "rotary_emb.local_inv_freq")
    extra = dict.fromkeys(buffers, np.zeros(1, np.float32)) | {"bert.embeddings.position_ids": np.arange(8)[None]}
    assert_same_bits(jaxsmooth.load(folder(tmp_path, tensors() | extra, config()))[0], small())


@pytest.mark.compatibility("loading", "a file of more layers than config.json", "refused; transformers cuts", was=0)
@pytest.mark.compatibility("loading", "an unknown matrix inside a layer", "refused; transformers leaves it out", was=0)
@pytest.mark.parametrize(
    "name",
    ["encoder.layer.2.output.dense.bias", "bert.encoder.layer.0.attention.self.distance_embedding.weight"],
)
def test_what_lies_inside_the_encoder_is_refused(name, tmp_path):
    place = folder(tmp_path, tensors() | {name: np.zeros((3, 6), np.float32)}, config())
    with pytest.raises(CheckpointError, match=f"tensor '{name}' is unexpected. Does config.json match"):
        jaxsmooth.load(place)


@pytest.mark.compatibility("loading", "one module under two names, with the same numbers", "read once", was=3)
def test_a_module_under_two_names_is_read_once(tmp_path):
    twice = prefixed(tensors(), "model.bert.") | prefixed(tensors(), "encoder.")
    assert_same_bits(jaxsmooth.load(folder(tmp_path, twice, config()))[0], small())


STRANGE = {
    "an unknown wrapper": (
        lambda t: prefixed(t, "tower.text."),
        r"37 of its 37 names begin with 'tower.text.', as 'tower.text.embeddings.\S+', .*no wrapper known here: save "
        "the module inside by itself",
    ),
    "another family's prefix": (
        lambda t: prefixed(t, "roberta."),
        r"Its tensors are those of the family 'roberta' or 'xlm-roberta' or 'camembert', as 'roberta.embeddings.\S+', "
        "but config.json says model_type 'bert'. Do the two files belong together",
    ),
    "another family": (
        lambda t: prefixed(tensors("distilbert"), "distilbert."),
        r"Its tensors are those of the family 'distilbert', as 'distilbert.embeddings.\S+', but config.json says",
    ),
    "an adapter": (
        lambda t: {f"base_model.model.{n}".replace("query.w", "query.base_layer.w"): a for n, a in t.items()},
        r"It holds an adapter that is not merged, as '\S+base_layer.weight': merge it",
    ),
    "an adapter beside its matrix": (
        lambda t: t | {"encoder.layer.0.attention.self.query.lora_A.default.weight": np.zeros((2, 6), np.float32)},
        r"tensor '\S+lora_A.default.weight' is unexpected. It holds an adapter that is not merged, .*merge it",
    ),
    "pruned matrices": (
        lambda t: {n.replace("query.weight", "query.weight_orig"): a for n, a in t.items()},
        r"Inside its encoder it holds '\S+query.weight_orig', .* does not have. tensor '\S+query.weight' is missing",
    ),
    "something else": (
        lambda t: {"conv.weight": t["embeddings.LayerNorm.bias"], "fc.weight": t["embeddings.LayerNorm.weight"]},
        r"It holds 'conv.weight', 'fc.weight', none of which is of the family 'bert'",
    ),
}


@pytest.mark.compatibility("loading", "names behind an unknown wrapper", "refused, naming it", was=4)
@pytest.mark.compatibility("loading", "tensors of another family than model_type", "refused, naming both", was=4)
@pytest.mark.compatibility("loading", "LoRA matrices beside the weights, not merged", "refused, with the way", was=4)
@pytest.mark.compatibility("loading", "pruned matrices (`weight_orig`)", "refused, naming them", was=4)
@pytest.mark.compatibility("loading", "tensors of something else", "refused, naming what is there", was=4)
@pytest.mark.parametrize("case", STRANGE)
def test_what_is_there_instead_is_named_first(case, tmp_path):
    change, message = STRANGE[case]
    with pytest.raises(CheckpointError, match=f"model.safetensors: {message}"):
        jaxsmooth.load(folder(tmp_path, change(tensors()), config()))


@pytest.mark.parametrize(
    "names",
    [
        ["0." * 500_000 + "bias"],
        ["a." * 500_000 + "bias"],
        [f"0.a.b.c.d.{k}.weight" for k in range(100_000)],
        ["_orig_mod"],
    ],
    ids=["wrappers", "segments", "names", "nothing"],
)
def test_names_without_end_take_little_time(names):
    with limits():
        found = sort_names(names, "bert")
        assert found.others == names
        assert "none of which is of the family 'bert'" in what_is_there(found, "bert")


@pytest.mark.compatibility("loading", "a head behind `module.`", "read", was=3)
def test_a_wrapped_head_is_read(tmp_path):
    head = {"module.classifier.weight": np.ones((3, 6), np.float32), "module.classifier.bias": np.zeros(3, np.float32)}
    hf = config(architectures=["BertForTokenClassification"])
    model, found, _ = jaxsmooth.load_with_head(folder(tmp_path, prefixed(tensors(), "module.bert.") | head, hf))
    assert_same_bits(model, small())
    np.testing.assert_array_equal(found.out.kernel, np.ones((6, 3)))


@pytest.mark.compatibility("loading", "an adapter beside a model's weights", "a warning: not applied", was=1)
def test_an_adapter_beside_the_weights_is_warned_of(tmp_path):
    place = folder(tmp_path, tensors(), config(), adapter_config__json="{}", adapter_model__safetensors="x")
    with pytest.warns(CheckpointWarning, match="an adapter lies beside the weights, and is not applied"):
        jaxsmooth.load(place)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_known_by_its_prefixed_names(family):
    found = families_of([NAMES[family].prefix + name for name in tensors(family)])
    assert found == (["roberta", "xlm-roberta", "camembert"] if "roberta" in NAMES[family].prefix else [family])


@pytest.mark.compatibility("loading", "quantised (integer) weights", "refused by name", was=0)
def test_integer_weights_are_refused(tmp_path):
    weights = tensors()
    weights["encoder.layer.0.output.dense.weight"] = np.zeros((6, 5), np.int8)
    with pytest.raises(CheckpointError, match=r"layer.0.output.dense.weight' must be one of .*; got I8. Quantised"):
        jaxsmooth.load(folder(tmp_path, weights, config()))


IN_MEMORY = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
"""As `ViTModel.state_dict()` of transformers 5.24 says; `save_pretrained` writes the left names."""


@pytest.mark.compatibility(
    "loading", "a ViT's or DeiT's state dict out of transformers 5 (layers.0.attention.q_proj)", "read", was=3
)
@pytest.mark.parametrize("family", ["vit", "deit"])
def test_a_vision_encoders_state_dict_of_transformers_5_is_read(family, tmp_path):
    def in_memory(name: str) -> str:
        for stored, short in IN_MEMORY.items():
            name = name.replace(f".{stored}.", f".{short}.")
        return f"model.{family}.{name.replace('encoder.layer.', 'layers.')}"

    weights = {in_memory(name): tensor for name, tensor in tensors(family).items()}
    assert any("layers.1.mlp.fc2" in name for name in weights)
    loaded, _ = jaxsmooth.load(folder(tmp_path, weights, config(family)))
    assert_same_bits(loaded, small(family))
