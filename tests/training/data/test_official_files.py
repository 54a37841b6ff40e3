"""GLUE, SWAG and SQuAD in their official formats, on small files written here in those formats."""

import json
import math

import pytest
from support.tasks import TOKENIZER

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import TASKS, load_task, read_task
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.tasks import Choice, Sentence

NLI = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
FILES = {
    "CoLA/train.tsv": 'gj04\t1\t\tHe said "go.\ngj04\t0\t*\tThey drank the pub.\n',
    "CoLA/dev.tsv": "gj04\t1\t\tThe sailors rode.\n",
    "CoLA/test.tsv": "index\tsentence\n0\tBill coughed.\n1\tShe left\n",
    "SST-2/train.tsv": "sentence\tlabel\nhide new secretions \t0\na joy\t1\n",
    "SST-2/dev.tsv": "sentence\tlabel\ndull\t0\n",
    "SST-2/test.tsv": "index\tsentence\n0\tuneasy mishmash\n",
    "MRPC/train.tsv": '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe "said" so .\tSo he said .\r\n',
    "MRPC/dev.tsv": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\ta\tb\n",
    "MRPC/test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t1\t2\tc\td\n",
    "STS-B/train.tsv": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    "0\tmain\tf\t2012\t0001\tnone\tnone\tA plane.\tA jet.\t5.000\n1\tmain\tf\t2012\t0004\tnone\tnone\tx\ty\t3.80\n",
    "STS-B/test.tsv": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\n"
    "0\tmain\tf\t2012\t0001\tnone\tnone\tA girl.\tA boy.\n",
    "QQP/train.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\thow?\twhy?\t0\n1\t3\t4\tbroken\n",
    "QQP/dev.tsv": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta?\tb?\t1\n",
    "QQP/test.tsv": "id\tquestion1\tquestion2\n0\tc?\td?\n",
    "MNLI/train.tsv": f"{NLI}\tsentence1\tsentence2\tlabel1\tgold_label\n"
    "0\t1\t1n\tfiction\tb\tb\tp\tp\tIt rains.\tIt is wet.\tneutral\tneutral\n"
    "1\t1\t1e\tfiction\tb\tb\tp\tp\tIt rains.\tIt rains.\tentailment\tentailment\n",
    "MNLI/dev_matched.tsv": f"{NLI}\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label\n"
    "0\t1\t1c\tfiction\tb\tb\tp\tp\tIt rains.\tIt is dry.\tneutral\tcontradiction\tcontradiction\n",
    "MNLI/dev_mismatched.tsv": f"{NLI}\tsentence1\tsentence2\tlabel1\tgold_label\n"
    "0\t1\t1e\tverbatim\tb\tb\tp\tp\tOther.\tGenre.\tentailment\tentailment\n",
    "MNLI/test_matched.tsv": f"{NLI}\tsentence1\tsentence2\n0\t1\t1\tf\tb\tb\tp\tp\tm\tn\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n"
    "0\tWhen?\tIn 1912.\tentailment\n1\tWho?\tLater.\tnot_entailment\n",
    "QNLI/dev.tsv": "index\tquestion\tsentence\tlabel\n0\tWhy?\tSo.\tnot_entailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tOil fell.\tOil prices drop.\tentailment\n",
    "RTE/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n",
    "WNLI/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tI stuck it.\tThe pin was long.\t1\n",
    "WNLI/dev.tsv": "index\tsentence1\tsentence2\tlabel\n0\tc\td\t0\n",
}


@pytest.fixture
def glue(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode())
    return tmp_path


# Task, split, place -> the example that the official file holds there.
EXPECTED = [
    ("cola", "train", Sentence('He said "go.', label=1, id="0")),
    ("cola", "test", Sentence("Bill coughed.", id="0")),
    ("sst2", "train", Sentence("hide new secretions ", label=0, id="0")),
    ("sst2", "test", Sentence("uneasy mishmash", id="0")),
    ("mrpc", "train", Sentence('He "said" so .', pair="So he said .", label=1, id="0")),
    ("mrpc", "test", Sentence("c", pair="d", id="0")),
    ("stsb", "train", Sentence("A plane.", pair="A jet.", label=5.0, id="0")),
    ("stsb", "test", Sentence("A girl.", pair="A boy.", id="0")),
    ("qqp", "validation", Sentence("a?", pair="b?", label=1, id="0")),
    ("qqp", "test", Sentence("c?", pair="d?", id="0")),
    ("mnli", "train", Sentence("It rains.", pair="It is wet.", label=1, id="0")),
    ("mnli", "validation", Sentence("It rains.", pair="It is dry.", label=2, id="0")),
    ("mnli", "test", Sentence("m", pair="n", id="0")),
    ("mnli-mm", "validation", Sentence("Other.", pair="Genre.", label=0, id="0")),
    ("qnli", "train", Sentence("When?", pair="In 1912.", label=0, id="0")),
    ("rte", "validation", Sentence("a", pair="b", label=1, id="0")),
    ("wnli", "train", Sentence("I stuck it.", pair="The pin was long.", label=1, id="0")),
]


@pytest.mark.parametrize(("short", "split", "example"), EXPECTED)
def test_glue_rows(glue, short, split, example):
    _, parts = read_task(f"glue/{short}", data_dir=glue)
    assert parts.splits[split][0] == example


def test_every_glue_task_streams(glue):
    names = [name for name in TASKS if name.startswith("glue/")]
    assert len(names) == 10
    for name in names:
        data = load_task(name, TOKENIZER, split="train", max_length=48, data_dir=glue)
        with make_stream(data, batch_size=2, shuffle=False, epochs=1, threads=0) as stream:
            batch = next(stream)
        assert batch.labels.dtype == ("float32" if name == "glue/stsb" else "int32")


def test_glue_from_the_folder_of_one_task(glue):
    _, parts = read_task("glue/sst2", data_dir=glue / "SST-2")
    assert [len(part) for part in parts.splits.values()] == [2, 1, 1]


def test_missing_labels_reach_the_batch(glue):
    for name, expected in (("glue/cola", -1), ("glue/stsb", math.nan)):
        data = load_task(name, TOKENIZER, split="test", max_length=48, data_dir=glue)
        with make_stream(data, batch_size=1, epochs=1, threads=0) as stream:
            assert next(stream).labels.tolist() == pytest.approx([expected], nan_ok=True)


def test_malformed_rows_are_left_out_and_said(glue):
    _, parts = read_task("glue/qqp", data_dir=glue)
    assert len(parts.splits["train"]) == 1
    assert parts.notes == ("left out: 1 rows of train.tsv with missing columns or an unknown label",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text\tlabel\nx\t1\n", r"must have the columns \['sentence', 'label'\]; \['sentence'\] are missing"),
        (b"sentence\tlabel\n\xff\t1\n", r"line 2: byte 15 \(0xff\) is not valid UTF-8"),
    ],
)
def test_glue_files_of_another_form(tmp_path, content, expected):
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_task("glue/sst2", data_dir=tmp_path)


def test_missing_files_and_folders(tmp_path, glue):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"must hold CoLA/train\.tsv"):
        read_task("glue/cola", data_dir=tmp_path / "empty")
    (tmp_path / "a.csv").write_text("text,label\na,0\nb,1\n")
    with pytest.raises(DataError, match="name it by its whole path"):
        read_task(str(tmp_path / "a.csv"), data_dir=tmp_path)
    with pytest.raises(DataError, match="data_dir must be a folder"):
        read_task("glue/cola", data_dir=tmp_path / "absent")
    with pytest.raises(DataError, match="has no validation split; it has train, test"):
        load_task("glue/stsb", TOKENIZER, split="validation", data_dir=glue)
    with pytest.raises(DataError, match="needs no data_dir"):
        read_task("movie-reviews", data_dir=tmp_path)


SWAG = (
    ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n"
    '0,a,1,"x, y","Someone, tall, sits.","He",gold,"walks ""home"".",b,c,d,2\n'
)


def test_swag(tmp_path):
    (tmp_path / "train.csv").write_text(SWAG)
    (tmp_path / "test.csv").write_text(SWAG.replace(",label\n", "\n").replace(",2\n", "\n"))
    task, parts = read_task("swag", data_dir=tmp_path)
    endings = ('He walks "home".', "He b", "He c", "He d")
    assert parts.splits["train"] == [Choice("Someone, tall, sits.", endings, 2, id="0")]
    assert parts.splits["test"] == [Choice("Someone, tall, sits.", endings, None, id="0")]
    data = load_task("swag", TOKENIZER, split="train", max_length=48, data_dir=tmp_path)
    with make_stream(data, batch_size=1, epochs=1, threads=0) as stream:
        assert next(stream).batch.tokens.shape[0] == 4 == task.choices


def test_swag_of_another_form(tmp_path):
    (tmp_path / "train.csv").write_text(SWAG.replace("ending3", "ending9"))
    with pytest.raises(DataError, match=r"line 2: expected the columns .*lack \['ending3'\]"):
        read_task("swag", data_dir=tmp_path)
    (tmp_path / "train.csv").write_text(SWAG.replace(",2\n", ",4\n"))
    with pytest.raises(DataError, match="label from 0 to 3; got '4'"):
        read_task("swag", data_dir=tmp_path)


def squad_file(*questions: dict) -> str:
    paragraph = {"context": "The tower is in Paris. It is tall.", "qas": list(questions)}
    return json.dumps({"version": "x", "data": [{"title": "Tower", "paragraphs": [paragraph]}]})


WHERE = {"id": "w", "question": "Where is it?", "answers": [{"text": "Paris", "answer_start": 16}]}
MOVED = {"id": "m", "question": "Where?", "answers": [{"text": "Paris", "answer_start": 15}]}
EITHER = {"id": "e", "question": "Where?", "answers": [*MOVED["answers"], *WHERE["answers"]]}
NEVER = {
    "id": "n",
    "question": "Who built it?",
    "answers": [],
    "plausible_answers": [{"text": "Paris", "answer_start": 16}],
    "is_impossible": True,
}


def test_squad_with_misplaced_answers(tmp_path):
    (tmp_path / "train-v1.1.json").write_text(squad_file(WHERE, MOVED, EITHER))
    (tmp_path / "dev-v1.1.json").write_text(squad_file(WHERE))
    task, parts = read_task("squad", data_dir=tmp_path)
    assert [question.id for question in parts.splits["train"]] == ["w", "e"]
    assert parts.splits["train"][1].answers == ("Paris",)
    assert parts.notes == (
        "train-v1.1.json, left out: 2 answers that are not at their place",
        "train-v1.1.json, left out: 1 questions, none of whose answers is",
    )
    assert not task.unanswerable
    data = load_task("squad", TOKENIZER, split="validation", max_length=60, data_dir=tmp_path)
    with make_stream(data, batch_size=1, epochs=1, threads=0) as stream:
        batch = next(stream)
    start, end = int(batch.labels.start[0]), int(batch.labels.end[0])
    tokens = TOKENIZER.strings(batch.batch.tokens[0, start : end + 1])
    assert "".join(tokens).replace("##", "") == "paris"


def test_squad_two_keeps_questions_without_answer(tmp_path):
    (tmp_path / "train-v2.0.json").write_text(squad_file(WHERE, NEVER))
    task, parts = read_task("squad2", data_dir=tmp_path)
    assert task.unanswerable
    assert [question.answers for question in parts.splits["train"]] == [("Paris",), ()]
    assert parts.notes == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"data": 3}', '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', "\xff"])
def test_squad_of_another_form(tmp_path, content):
    (tmp_path / "train-v1.1.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match="must be in SQuAD's JSON format"):
        read_task("squad", data_dir=tmp_path)
