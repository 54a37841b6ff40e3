"""What a model's name may be: home, environment, caches, files in place of folders."""

import os
import sys
import types

import pytest
from support.checkpoint import assert_same_bits
from support.model_folders import config, folder, small, tensors

import jaxsmooth
from jaxsmooth.errors import CheckpointError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home, with a model in it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path))
    folder(tmp_path / "model", tensors(), config())
    return tmp_path


@pytest.mark.compatibility("loading", "`~/model`", "the user's home", was=3)
@pytest.mark.compatibility("loading", "`$MODELS/model`", "filled in from the environment", was=3)
@pytest.mark.parametrize("name", ["~/model", "$MODELS/model", "${MODELS}/model", "~/model/"])
def test_home_and_environment_are_filled_in(name, home):
    assert_same_bits(jaxsmooth.load(name)[0], small())


def test_a_folder_of_that_very_name_comes_first(home, monkeypatch):
    monkeypatch.chdir(folder(home / "~", None, None))
    folder(home / "~" / "$MODELS", tensors("distilbert"), config("distilbert"))
    assert jaxsmooth.load("$MODELS")[0].config.family == "distilbert"


@pytest.mark.compatibility("loading", "`~/nothing`", "refused, with the path it means", was=4)
def test_a_missing_path_is_spelled_out(home):
    with pytest.raises(CheckpointError, match=rf"'~/nothing' is no directory here \(it means '{home}/nothing'\)"):
        jaxsmooth.load("~/nothing")


@pytest.mark.compatibility("loading", "`models/bert`, where models has no bert", "refused, nothing fetched", was=4)
def test_a_folder_that_lacks_the_model_is_no_owner_on_the_hub(home, monkeypatch):
    monkeypatch.chdir(home)
    with pytest.raises(CheckpointError, match="'model/bert' is no directory here: the folder 'model' has no 'bert'"):
        jaxsmooth.load("model/bert")


@pytest.mark.compatibility("loading", "`models/bert`, where nothing is called models", "both readings said", was=4)
def test_a_name_of_two_parts_is_said_to_be_neither(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="'models/bert' is no directory here, and looks like a hub id, which"):
        jaxsmooth.load("models/bert")


@pytest.mark.compatibility("loading", "a file (model.safetensors, config.json) for its folder", "named", was=4)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_in_place_of_its_folder_is_answered_with_the_folder(name, home):
    with pytest.raises(CheckpointError, match=rf"{name} is a file; .* Did you mean '{home}/model'"):
        jaxsmooth.load(home / "model" / name)


ARCHIVES = {
    "model.zip": (b"PK\x03\x04", "a zip archive"),
    "model.tar.gz": (b"\x1f\x8b", "a gzip archive"),
    "model.tar": (b"\0" * 257 + b"ustar", "a tar archive"),
    "model.tar.xz": (b"\xfd7zXZ\x00", "an xz archive"),
}


@pytest.mark.compatibility("loading", "an archive (.zip, .tar.gz) for a folder, or in one", "unpack it", was=4)
@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_called_one(name, tmp_path):
    content, words = ARCHIVES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is {words}. Unpack it, and load the folder"):
        jaxsmooth.load(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name} is an archive. Unpack it"):
        jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("loading", "a folder of the hub's cache (models--owner--name)", "its main snapshot", was=3)
def test_a_folder_of_the_hubs_cache_is_followed(tmp_path):
    cache = tmp_path / "models--owner--name"
    for name in ("aaa", "bbb"):
        folder(cache / "snapshots" / name, tensors(), config())
    with pytest.raises(CheckpointError, match="hub's cache; name one of its snapshots: aaa, bbb"):
        jaxsmooth.load(cache)
    folder(cache / "refs", None, None, main="bbb")
    folder(cache / "snapshots" / "aaa", {}, config())
    assert_same_bits(jaxsmooth.load(cache)[0], small())


@pytest.mark.compatibility("loading", "a link that leads nowhere, as a folder or as a file", "named", was=4)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", ""])
def test_a_broken_link_is_called_one(name, tmp_path):
    place = folder(tmp_path / "model", tensors(), config())
    link = place / name if name else tmp_path / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "cleared")
    with pytest.raises(jaxsmooth.JaxsmoothError, match=f"{link.name} is a broken link: .*cleared is not there"):
        jaxsmooth.load(place if name else link)


@pytest.mark.compatibility("loading", "a folder or a file that may not be read", "refused, with the mode", was=0)
@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors", "tokenizer.json"])
def test_what_may_not_be_read_is_refused(name, tmp_path, monkeypatch):
    place = folder(tmp_path, tensors(), config(), tokenizer__json="{}")
    # The mode itself would not keep root out.
    refused, real = place / name, type(place).open
    monkeypatch.setattr(os, "access", lambda path, mode: path != refused)

    def deny(path, *arguments, **keywords):
        if path == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(type(place), "open", deny)
    with pytest.raises(jaxsmooth.JaxsmoothError, match=f"{refused.name} may not be read: no permission"):
        jaxsmooth.load(place)


@pytest.mark.compatibility("loading", "an old hub name without owner (bert-base-uncased)", "today's is fetched", was=4)
@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("bert-base-uncased", "google-bert"),
        ("distilbert-base-uncased", "distilbert"),
        ("roberta-base", "FacebookAI"),
        ("xlm-roberta-base", "FacebookAI"),
        ("albert-base-v2", "albert"),
        ("camembert-base", "almanach"),
        ("distilroberta-base", "distilbert"),
        ("gpt2", "openai-community"),
    ],
)
def test_an_old_name_is_that_of_today(name, owner, monkeypatch, tmp_path):
    place, asked = folder(tmp_path / "fetched", tensors(), config()), []
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    hub = types.SimpleNamespace(snapshot_download=lambda name, allow_patterns: asked.append(name) or str(place))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_same_bits(jaxsmooth.load(name)[0], small())
    assert asked == [f"{owner}/{name}"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("minilm-16", "minilm-l6"),
        ("bert-base-uncase", "bert-base-uncased"),
        ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    ],
)
def test_a_name_that_is_nearly_right_is_asked_after(name, meant):
    with pytest.raises(CheckpointError, match=rf"no hub id \(owner/name\). Did you mean '{meant}'\?"):
        jaxsmooth.load(name)


@pytest.mark.compatibility(
    "loading", "a variable that is not set, a path with blanks", "no hub id: nothing fetched", was=4
)
@pytest.mark.parametrize("name", ["$NOT_SET_ANYWHERE/model", "my models/bert", "models\\bert/x", "a/.."])
def test_what_can_be_no_hub_id_is_not_fetched(name):
    with pytest.raises(CheckpointError, match="is no directory here, no model asset"):
        jaxsmooth.load(name)


@pytest.mark.compatibility("loading", "the web address of a model", "refused; owner/name is asked for", was=4)
def test_an_address_is_answered_with_the_form_of_a_hub_id():
    with pytest.raises(CheckpointError, match=r"no hub id \(owner/name\). Of a model's web address, name the last two"):
        jaxsmooth.load("https://models.example/owner/name")
