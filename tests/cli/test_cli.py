"""The command line: exit statuses, what is printed where, and that nothing half-written stays behind."""

import importlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.make_frozen import FROZEN
from support.report import synthetic

from jaxsmooth import report
from jaxsmooth.assets import REGISTRY, read_texts
from jaxsmooth.cli.main import main
from jaxsmooth.files import atomic_write, dumps_strict
from jaxsmooth.results.fate import SENTENCE_NUMBERS, MapConvergence, MapFates
from jaxsmooth.results.summaries import DataSummary
from jaxsmooth.studies import converge as converging
from jaxsmooth.studies import diagnose as analysis

# One bucket of 16 tokens: one program to compile per precision.
LINES = ["Dull.", "", "a film worth", "   ", "so be it", "b"]


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def diagnose(text: Path, out: Path, *more: str) -> int:
    return main(["diagnose", "tiny", "--data", str(text), "--out", str(out), "--tokens-per-batch", "64", *more])


def refusal(capfd) -> str:
    """The one line on stderr; nothing else was printed."""
    out, err = capfd.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("jaxsmooth: ")
    return line.removeprefix("jaxsmooth: ")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of one finished command."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "text.txt").write_text("\n".join(LINES), encoding="utf-8")
    assert diagnose(folder / "text.txt", folder / "out") == 0
    return folder / "out"


def two_fates(model, tokenizer, texts, *, map, name, data, **_) -> MapConvergence:
    """In the place of the study, which test_fate.py follows: half of the texts in consensus, the others moving."""
    texts = tuple(texts)
    fate = tuple("consensus" if k % 2 else "moving" for k in range(len(texts)))
    numbers = dict.fromkeys(SENTENCE_NUMBERS, np.ones(len(texts)))
    maps = tuple(
        MapFates(layer, fate, (((0,),),) * len(texts), numbers, np.ones((len(texts), 3))) for layer in (1, 2, 3, 4)
    )
    about = DataSummary(data, len(texts), len(texts), 0)
    tokens = tuple((text,) for text in texts)
    return MapConvergence(synthetic(4, 4, name=name).model, about, map, 2, 1e-5, None, tokens, maps, (), {})


def test_a_diagnosis_with_the_fate_of_the_first_eight_texts(text, tmp_path, monkeypatch, capfd):
    """The command passes on what it is told; numbers, page and terminal say what was found, of every layer."""
    monkeypatch.setattr(analysis, "diagnose", lambda *_, **__: synthetic(4, 4))
    monkeypatch.setattr(converging, "converge", two_fates)
    monkeypatch.setattr(importlib.import_module("jaxsmooth.report.figures"), "write_figures", lambda *_, **__: None)
    lines = [f"a film {k}" for k in range(11)]
    text.write_text("\n".join(lines), encoding="utf-8")
    assert diagnose(text, tmp_path / "out", "--fate", "layer") == 0
    content = json.loads((tmp_path / "out" / "fate" / "fate.json").read_text(encoding="utf-8"))
    assert content["map"] == "layer"
    assert content["tokens"] == [[line] for line in lines[:8]]
    assert [one["layer"] for one in content["maps"]] == [1, 2, 3, 4]
    assert {one["shares"]["consensus"] for one in content["maps"]} == {0.5}
    printed = " ".join(capfd.readouterr().out.split())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Where do the tokens go?" in page
    for layer in (1, 2, 3, 4):
        words = f"Layer {layer} applied again and again: 4 of 8 sentences: consensus (all tokens become equal"
        assert words in printed
        assert words in page
    assert str(tmp_path / "out" / "fate" / "fate.json") in printed


@pytest.mark.long
def test_attention_makes_tokens_equal_in_a_whole_diagnosis(text, tmp_path, capfd):
    assert diagnose(text, tmp_path / "out", "--fate", "attention") == 0
    content = json.loads((tmp_path / "out" / "fate" / "fate.json").read_text(encoding="utf-8"))
    assert len(content["tokens"]) == 4  # empty lines are none
    assert [one["shares"]["consensus"] for one in content["maps"]] == [1, 1, 1, 1]
    assert "layer 4, applied to the tokens again and again: 4 of 4" in " ".join(capfd.readouterr().out.split())


def test_diagnose_writes_a_whole_report(finished):
    out = finished
    assert {"report.html", "report.json", "settings.json", "figures"} == {path.name for path in out.iterdir()}
    figures = list((out / "figures").iterdir())
    starts = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    assert {path.suffix for path in figures} == set(starts)
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in figures)
    assert (out / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [layer["layer"] for layer in content["layers"]] == [0, 1, 2, 3, 4]
    assert content["data"]["sentences"] == 4  # empty lines are none
    assert content["model"]["name"] == "tiny"
    assert "random weights" in content["model"]["note"]


@pytest.mark.parametrize(("flags", "precision"), [((), "float32"), (("--precision", "float64"), "float64")])
def test_precision_is_that_of_the_model_and_of_jax(flags, precision, text, tmp_path, monkeypatch):
    seen = []

    def record(model, tokenizer, texts, **options):
        seen.extend({str(leaf.dtype) for leaf in jax.tree.leaves(model)} | {str(jnp.ones(()).dtype)})
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "diagnose", record)
    diagnose(text, tmp_path / "out", *flags)
    assert seen == [precision]


@pytest.mark.compatibility(
    "text",
    "`diagnose`, `verify`, `converge`, `compare` with `--data reviews.csv`",
    "its texts, or refused with `--columns`",
    was=1,
)
@pytest.mark.parametrize("command", ["diagnose", "verify", "converge", "compare"])
def test_a_table_is_read_by_its_column_of_texts(command, text, tmp_path, monkeypatch, capfd):
    seen = []

    def record(model, tokenizer, texts, **options):
        seen.extend(texts)
        assert options["data"] == f"{path} (column review)"
        raise KeyboardInterrupt

    study = "converge_heads" if command == "converge" else command
    monkeypatch.setattr(importlib.import_module(f"jaxsmooth.studies.{command}"), study, record)
    path = tmp_path / "reviews.csv"
    path.write_text('review,stars\n"A film, worth seeing.",5\nDull.,1\n', encoding="utf-8")
    arguments = [command, "tiny", "--data", str(path), "--out", str(tmp_path / "out")]
    for flags in (["--columns", "text=review"], ["--columns", "review"], ["--text-column", "review"]):
        seen.clear()
        assert main([*arguments, *flags]) == 130
        assert seen == ["A film, worth seeing.", "Dull."]
    capfd.readouterr()
    assert main(arguments) == 1
    assert re.search(r"no column 'text'; its columns are \['review', 'stars'\].*--columns text=NAME", refusal(capfd))
    assert main([*arguments, "--columns", "text=review,label=stars"]) == 1
    assert "only texts are read here" in refusal(capfd)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fate", ["none", "layer"])
def test_standard_input_and_a_sentence_reach_the_study(fate, tmp_path, monkeypatch, capfd):
    """Each text once, its number known beforehand but for standard input; the fate is that of the first eight."""
    seen, followed = [], []

    def record(model, tokenizer, texts, **options):
        seen.append((len(texts) if hasattr(texts, "__len__") else None, list(texts), options["data"]))
        return synthetic(4, 4)

    def follow(model, tokenizer, texts, **options):
        followed.append((list(texts), options["data"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis, "diagnose", record)
    monkeypatch.setattr(converging, "converge", follow)
    monkeypatch.setattr(importlib.import_module("jaxsmooth.report.figures"), "write_figures", lambda *_, **__: None)
    lines = [f"a film {k}" for k in range(11)]
    content = io.TextIOWrapper(io.BufferedReader(io.BytesIO("\n".join(lines).encode())))
    monkeypatch.setattr("sys.stdin", content)
    options = ["--fate", fate, "--out", str(tmp_path / "out")]
    expected = 0 if fate == "none" else 130
    assert main(["diagnose", "tiny", "--data", "-", *options]) == expected
    assert main(["diagnose", "tiny", "--data", "A film worth seeing.", *options]) == expected
    assert seen == [(None, lines, "standard input"), (1, ["A film worth seeing."], "A film worth seeing.")]
    assert followed == ([] if fate == "none" else [(lines[:8], "standard input"), (seen[1][1], seen[1][2])])
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert main(["diagnose", "tiny", "--data", str(path), "--limit", "3", *options]) == expected
    assert main(["diagnose", "tiny", "--data", str(path), "--limit", "3", "--sample", "1", *options]) == expected
    assert [count for count, *_ in seen[2:]] == [3, 3]


@pytest.mark.compatibility("text", "an escape sequence in the name of a file that a refusal names", "left out", was=1)
def test_a_refusal_gives_no_commands_to_the_terminal(tmp_path, capfd):
    assert main(["diagnose", "tiny", "--data", f"{tmp_path}/a\x1b[2J\x1b]0;mine\x07\u202eb.txt"]) == 1
    assert f"there is no file {tmp_path}/ab.txt" in refusal(capfd)
    # as a shell's pattern may bring them
    with pytest.raises(SystemExit):
        main(["diagnose", "tiny", "a\x1b[2J\x1b]0;mine\x07b.txt"])
    assert "ab.txt" in (said := capfd.readouterr().err)
    assert not {"\x1b", "\x07"} & set(said)


@pytest.mark.compatibility(
    "text", "the name of a file that is not UTF-8 (bytes) as `--data`", "read; report.json escapes it", was=2
)
def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / "gr\udcfc\udcdfe.txt"
    try:
        path.write_text("a\n", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert read_texts(path) == ["a"]
    written = atomic_write(tmp_path / "a.json", dumps_strict({"data": str(path)}))
    assert json.loads(written.read_text(encoding="utf-8")) == {"data": str(path)}


@pytest.mark.compatibility(
    "long", "a damaged line in the middle of a study's text", "refused with its line, nothing written", was=0
)
def test_a_damaged_line_far_down_writes_nothing(text, tmp_path, capfd):
    text.write_bytes(b"a film\n" * 40 + b"\xff\n")
    assert diagnose(text, tmp_path / "out") == 1
    assert "text.txt, line 41: byte 280 (0xff) is not valid UTF-8" in refusal(capfd)
    assert not (tmp_path / "out").exists()


def test_a_second_run_replaces_the_first_and_names_its_report(text, tmp_path, finished, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.json").write_text("old")
    (out / "mine.txt").write_text("mine")
    assert diagnose(text, out, "--limit", "4") == 0
    assert str(out / "report.html") in capfd.readouterr().out.replace("\n", "")
    ours, first = (json.loads((folder / "report.json").read_text()) for folder in (out, finished))
    assert ours["layers"] == first["layers"]
    assert (out / "mine.txt").read_text() == "mine"


REFUSED = {
    "no such file": (
        ["diagnose", "tiny", "--data", "no/such/file.txt"],
        "there is no file no/such/file.txt.*the texts are",
    ),
    "no such model": (["diagnose", "no-such-model", "--data", "tiny"], "'no-such-model' is no directory here"),
    "a text as model": (["diagnose", "movie-reviews", "--data", "tiny"], "text asset, not a model"),
    "a model as text": (["diagnose", "tiny", "--data", "minilm-l6"], "minilm-l6 is a model, not a text"),
    "limit": (["diagnose", "tiny", "--data", "tiny", "--limit", "0"], "limit must be a whole number of at least 1"),
    "batch": (["diagnose", "tiny", "--data", "tiny", "--tokens-per-batch", "0"], "tokens_per_batch must be"),
    "no such asset": (["assets", "path", "nothing"], "there is no asset 'nothing'; the names are minilm-l6"),
    "clear nothing": (["assets", "clear", "nothing"], "there is no asset 'nothing'"),
    "clear what": (["assets", "clear"], "name the one asset to clear, or give --all"),
    "clear one and all": (["assets", "clear", "tweets", "--all"], "name the one asset to clear, or give --all"),
    "verify nothing": (["assets", "verify", "nothing"], "there is no asset 'nothing'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_status_1(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[case]
    assert main(arguments) == 1
    assert re.search(message, refusal(capfd))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no text"), (b"\n \n\n", "holds no text"), (b"good\n\xff\xfe\n", "line 2: byte 5 .* not valid UTF-8")],
    ids=["empty", "blank", "latin"],
)
def test_a_file_without_text_is_refused(content, message, text, tmp_path, capfd):
    text.write_bytes(content)
    assert diagnose(text, tmp_path / "out") == 1
    assert re.search(message, refusal(capfd))
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_tokenizer_is_refused(text, tmp_path, capfd):
    command = ["diagnose", str(FROZEN / "gelu-one-head"), "--data", str(text), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "has no tokenizer.json or vocab.txt" in refusal(capfd)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(text, capfd, monkeypatch):
    monkeypatch.setattr(analysis, "diagnose", None)
    assert diagnose(text, text / "out") == 1
    assert str(text) in refusal(capfd)
    assert text.read_text(encoding="utf-8").splitlines() == LINES


@pytest.mark.skipif(os.access("/", os.W_OK), reason="this user may write everywhere (root)")
def test_a_folder_without_permission_is_refused_before_any_work(text, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(analysis, "diagnose", None)
    tmp_path.chmod(0o500)
    assert diagnose(text, tmp_path / "out" / "deep") == 1
    assert "no permission" in refusal(capfd)


@pytest.mark.parametrize("where", ["diagnose", "write_diagnosis"])
def test_an_interrupt_is_status_130_without_a_traceback(where, text, tmp_path, monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(analysis if where == "diagnose" else report, where, interrupted)
    assert diagnose(text, tmp_path / "out") == 130
    out, err = capfd.readouterr()
    assert (out == "") == (where == "diagnose")  # the numbers are printed before the files are written
    *progress, line = err.strip().splitlines()
    progress = [each for each in progress if not each.endswith(" so far")]  # of a slow machine
    assert [each.split(" of ")[0] for each in progress] == ["jaxsmooth: mean cosine"] * (where == "write_diagnosis")
    assert line.startswith("jaxsmooth: interrupted")
    assert not (tmp_path / "out").exists()


def test_a_fault_of_the_program_is_not_dressed_up(text, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(analysis, "diagnose", broken)
    with pytest.raises(ZeroDivisionError):
        diagnose(text, tmp_path / "out")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["diagnose"],
        ["nonsense"],
        ["assets"],
        ["assets", "path"],
        ["diagnose", "tiny", "--nonsense"],
        ["diagnose", "tiny", "--precision", "float16"],
        ["diagnose", "tiny", "--limit", "many"],
    ],
    ids=" ".join,
)
def test_bad_flags_are_status_2(arguments, capfd):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    assert err.strip()


@pytest.mark.parametrize("arguments", [["--help"], ["diagnose", "--help"], ["assets", "--help"]], ids=" ".join)
def test_help_is_status_0(arguments, capfd):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert "usage: jaxsmooth" in capfd.readouterr().out


def test_assets_list_shows_every_asset_and_its_state(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JAXSMOOTH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["assets", "list"]) == 0
    out, _ = capfd.readouterr()
    for name in REGISTRY:
        (row,) = [line for line in out.splitlines() if f" {name} " in line]
        assert "absent" in row
    assert not (tmp_path / "cache").exists()


def test_assets_path_of_an_absent_asset_says_what_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("JAXSMOOTH_CACHE", str(tmp_path / "cache"))
    assert main(["assets", "path", "movie-reviews"]) == 1
    assert "run `jaxsmooth assets fetch movie-reviews`" in refusal(capfd)
    assert main(["assets", "clear", "--all"]) == 0
    assert capfd.readouterr().out == "nothing to remove\n"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jaxsmooth", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(("assets", "list"), 0), (("assets", "path", "minilm-l6"), 1), (("diagnose", "tiny", "--data", "nowhere"), 1)],
    ids=["list", "path", "diagnose"],
)
def test_the_process_ends_with_the_status(arguments, status, tmp_path):
    done = run(*arguments, JAXSMOOTH_CACHE=str(tmp_path), PYTHONIOENCODING="ascii")
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == status
    assert bool(done.stdout) == (status == 0)


@pytest.mark.skipif(os.name == "nt", reason="has no SIGPIPE")
def test_an_output_that_nobody_reads_is_no_fault(tmp_path):
    """As of `jaxsmooth assets list | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "jaxsmooth", "assets", "list"]
    environment = {**os.environ, "JAXSMOOTH_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_bad_flags_end_the_process_with_2():
    done = run("diagnose", "tiny", "--tokens-per-batch", "x")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.compatibility("saving", "`--out=~/run`, which a shell leaves as it is", "the user's home", was=1)
def test_home_is_filled_in_for_every_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["evaluate", "~/run"]) == 1
    assert str(tmp_path / "run") in capsys.readouterr().err
