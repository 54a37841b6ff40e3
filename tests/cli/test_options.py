"""Flags, help, files of settings: what the command line takes and how it says what it does not."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jaxsmooth.cli import main as running
from jaxsmooth.cli.commands import COMMANDS, Compare, Diagnose, Entry, Finetune, Glossary, Verify
from jaxsmooth.cli.main import main
from jaxsmooth.cli.options import POSITIONAL, options_of
from jaxsmooth.cli.parsing import parse
from jaxsmooth.cli.settings import read_settings, write_settings
from jaxsmooth.errors import ConfigError
from jaxsmooth.mitigations.parse import METHODS, parse_remedies
from jaxsmooth.report.sections import glossary
from jaxsmooth.theory.hypotheses.asked import ASKED
from jaxsmooth.theory.theorems import THEOREMS
from jaxsmooth.training.config import FinetuneConfig

ENTRIES = {name: entry for name, entry in COMMANDS.items() if isinstance(entry, Entry)}
ENTRIES |= {f"assets {name}": entry for name, entry in COMMANDS["assets"].items()}


def status(arguments: list[str], capfd) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capfd.readouterr()
    return exit_.value.code, out, err


def settings_file(folder: Path, content: object, name: str = "mine.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_version(capfd):
    code, out, _ = status(["--version"], capfd)
    assert code == 0
    assert re.fullmatch(r"jaxsmooth \d+\.\d+\S*\n", out)


@pytest.mark.parametrize("name", ENTRIES)
def test_help_shows_every_setting_its_words_and_an_example(name, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = status([*name.split(), "--help"], capfd)
    assert code == 0
    for setting, option in options_of(ENTRIES[name].command).items():
        flag = {"remedies": "--with"}.get(setting, f"--{setting.replace('_', '-')}")
        assert POSITIONAL.get(setting, flag) in out
        assert option.about  # said in the dataclass
        assert option.about[:60] in out
    for example in ENTRIES[name].examples:
        assert f"  jaxsmooth {example}\n" in out


@pytest.mark.parametrize("name", ENTRIES)
def test_examples_are_commands(name):
    import shlex

    for example in ENTRIES[name].examples:
        if "--config" not in example:
            command = parse(shlex.split(example))
            assert type(command) is ENTRIES[name].command
            if isinstance(command, Verify):  # names that exist
                assert set(command.theorem) <= set(THEOREMS)
                assert set(command.hypothesis) <= set(ASKED)
            if isinstance(command, Compare):
                assert parse_remedies(command.remedies)
            if isinstance(command, Glossary) and command.name is not None:
                assert glossary.find(command.name)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.groups])
def test_every_flag_is_in_one_group(name):
    grouped = " ".join(ENTRIES[name].groups.values()).split()
    assert len(grouped) == len(set(grouped))
    free = options_of(ENTRIES[name].command).keys() - set(grouped) - POSITIONAL.keys()
    assert set(grouped) <= options_of(ENTRIES[name].command).keys()
    assert free <= {"dry_run"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["diagnos", "tiny"], "there is no command 'diagnos'; .* Did you mean 'diagnose'"),
        (["assets", "lst"], "there is no command 'lst'; .* Did you mean 'list'"),
        (["diagnose", "tiny", "--limt", "3"], "--limit N"),
    ],
)
def test_a_command_or_a_flag_that_is_nearly_right(arguments, words, capfd):
    code, out, err = status(arguments, capfd)
    assert (code, out) == (2, "")
    assert re.search(words, err)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["diagnose", "minilm-16"], "minilm-l6"),
        (["diagnose", "tiny", "--data", "movie-review"], "movie-reviews"),
        (["compare", "tiny", "--data", "tiny", "--with", "contranrom"], "contranorm"),
        (["compare", "tiny", "--data", "tiny", "--with", "gfsa:powr=1"], "power"),
        (["verify", "tiny", "--data", "tiny", "--theorem", "block_rate_L"], "block_rate_L1"),
        (["verify", "tiny", "--data", "tiny", "--hypothesis", "open_hemispher"], "open_hemisphere"),
        (["finetune", "tiny", "--task", "movie-revews"], "movie-reviews"),
        (["assets", "path", "minilm"], "minilm-l6"),
    ],
)
def test_a_name_that_is_nearly_right(arguments, meant, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXSMOOTH_CACHE", str(tmp_path / "cache"))
    assert main(arguments) == 1
    assert f"Did you mean '{meant}" in capfd.readouterr().err


def test_each_study_has_a_folder_of_its_own_for_each_model():
    def out(*arguments: str) -> str:
        return str(running._at_home(parse([*arguments])).out)

    assert out("diagnose", "minilm-l6") == "reports/diagnose-minilm-l6"
    assert out("verify", "google-bert/bert-base-uncased") == "reports/verify-google-bert-bert-base-uncased"
    assert out("compare", "/data/models/mine/") == "reports/compare-models-mine"
    assert out("converge", "tiny", "--out", "here") == "here"
    assert out("predict", "runs/mine") == "reports/predictions-runs-mine.jsonl"
    found = parse(["finetune", "tiny", "--task", "tweets"])
    assert str(found.config.out) == "runs/tiny-tweets"
    assert dataclasses.replace(found.config, model="other").out == found.config.out


@pytest.mark.compatibility(
    "saving", "`--config FILE`: JSON or YAML, what a run or a study wrote", "its settings", was=4
)
def test_settings_come_from_a_file_and_the_command_line_overrides_them(tmp_path):
    path = settings_file(tmp_path, {"model": "tiny", "limit": 4, "tokens-per-batch": 64, "each_text": True})
    found = parse(["diagnose", "--config", str(path)])
    assert found == Diagnose("tiny", limit=4, tokens_per_batch=64, each_text=True)
    assert parse(["diagnose", "minilm-l6", f"--config={path}", "--limit", "8"]).model == "minilm-l6"
    assert parse(["diagnose", "minilm-l6", f"--config={path}", "--limit", "None"]).limit is None
    text = "with: contranorm\nmodel: tiny\nlimit: null\ncheck: false\n"
    found = parse(["compare", "--config", str(settings_file(tmp_path, text, "mine.yaml"))])
    assert (found.remedies, found.limit, found.check) == ("contranorm", None, False)


def test_what_a_study_and_a_run_wrote_is_read_back(tmp_path):
    given = [
        ["diagnose", "tiny", "--data", "a b", "--fate", "layer"],
        ["verify", "tiny", "--theorem", "a", "--theorem", "b", "--sample", "3"],
        ["compare", "tiny", "--with", "gfsa", "--precision", "float64"],
        ["converge", "tiny", "--map", "layer", "--std", "1", "2.5"],
    ]
    for arguments in given:
        command = parse(arguments)
        path = write_settings(command, tmp_path)
        assert parse([arguments[0], "--config", str(path)]) == command
    config = FinetuneConfig(task="tweets", model="tiny", learning_rate=1e-5, check=False, out=tmp_path / "run")
    config.save(tmp_path / "config.json")
    longer = parse(["finetune", "--config", str(tmp_path / "config.json"), "--epochs", "4"])
    assert longer == Finetune(dataclasses.replace(config, epochs=4.0))
    # YAML takes 2e-5 for a word
    rate = settings_file(tmp_path, "learning_rate: 2e-5\nsteps: 7\n", "run.yml")
    assert parse(["finetune", "tiny", "--config", str(rate)]).config.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ({"limt": 4}, "a.json", r"there is no setting 'limt'. Did you mean 'limit'\?"),
        ({"limit": "many"}, "a.json", r"limit must be int \| None; got 'many'"),
        ({"limit": 4.5}, "a.json", r"limit must be int \| None; got 4.5"),
        ({"precision": "float16"}, "a.json", "precision must be .*; got 'float16'"),
        ({"check": "maybe"}, "a.json", "check must be bool; got 'maybe'"),
        ([1], "a.json", "must hold one mapping"),
        ("{", "a.json", "cannot be read as settings"),
        ("a: [", "a.yaml", "cannot be read as settings"),
        ("model: tiny", "a.json", "Expected YAML in a .yaml file, or JSON"),
    ],
)
def test_a_file_of_settings_that_does_not_fit(content, name, words, tmp_path, capfd):
    path = settings_file(tmp_path, content, name)
    with pytest.raises(ConfigError, match=words):
        read_settings(path, Diagnose)
    assert main(["diagnose", "tiny", "--config", str(path)]) == 1
    assert capfd.readouterr().err.startswith(f"jaxsmooth: {path}")


@pytest.mark.parametrize("command", [Diagnose, Verify, Compare])
def test_no_file_of_settings(command, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read as settings"):
        read_settings(tmp_path / "none.json", command)
    with pytest.raises(ConfigError, match="is an address"):
        read_settings(Path("gs://bucket/a.json"), command)


@pytest.mark.compatibility(
    "saving", "`gs://`, `s3://` for any path of a command", "refused: an address, no folder", was=2
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["diagnose", "tiny", "--data", "tiny", "--out", "gs://bucket/out"],
        ["diagnose", "gs://bucket/model", "--data", "tiny"],
        ["diagnose", "tiny", "--data", "s3://bucket/texts.txt"],
        ["finetune", "tiny", "--out", "gs://bucket/run"],
        ["finetune", "tiny", "--out", "gs://bucket/run", "--dry-run"],
        ["finetune", "tiny", "--task", "s3://bucket/a.csv"],
        ["finetune", "tiny", "--task", "glue/sst2", "--data-dir", "gs://bucket/glue"],
        ["aot", "tiny", "--out", "gs://bucket/a.json"],
        ["evaluate", "gs://bucket/run"],
        ["predict", "gs://bucket/run"],
        ["predict", "run", "--out", "gs://bucket/out.jsonl"],
    ],
    ids=" ".join,
)
def test_an_address_is_refused_wherever_a_path_is_taken(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    err = capfd.readouterr().err
    assert re.search(r"is an address; expected a path on this machine|read from this machine", err)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_no_address(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXSMOOTH_CACHE", "gs://bucket/cache")
    assert main(["assets", "list"]) == 1
    assert "gs://bucket/cache is an address" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_remedies_are_listed_with_parameters_defaults_and_sources(monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["remedies"]) == 0
    out = capfd.readouterr().out
    for name, method in METHODS.items():
        assert re.search(rf"│ {name} ", out)
        assert method.source in out
        for key, one in method.parameters.items():
            assert f"{key}{'' if one.default is None else f' = {one.default:g}'}: {one.about}" in out
