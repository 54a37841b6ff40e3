"""Classes that are missing, as public data sets write them."""

import json

import pytest

from jaxsmooth.assets import MalformedRowWarning
from jaxsmooth.errors import DataError
from jaxsmooth.training.data.catalogue import read_task

PUBLIC = {
    "SNLI's release": ["neutral", "-", "entailment", "contradiction", "neutral"],
    "SNLI of the hub": [0, -1, 1, 2, 0],
}


def write(path, labels) -> str:
    path.write_text("".join(json.dumps({"text": f"t{k}", "label": label}) + "\n" for k, label in enumerate(labels)))
    return str(path)


@pytest.mark.compatibility(
    "table",
    "SNLI's label `-`, and `datasets`' -1 beside 0, 1, 2: no class",
    "refused with the row, or left out and counted; was a class of its own",
    was=1,
)
@pytest.mark.parametrize("labels", PUBLIC.values(), ids=PUBLIC)
def test_marks_of_a_missing_class(labels, tmp_path):
    path = write(tmp_path / "a.jsonl", labels)
    with pytest.raises(DataError, match=r"line 2: label is missing; got .*--missing skip.*--missing literal"):
        read_task(path)
    with pytest.warns(MalformedRowWarning, match="left out: 1 rows .* line 2"):
        assert len(read_task(path, missing="skip")[0].classes) == 3
    assert len(read_task(path, missing="literal")[0].classes) == 4


@pytest.mark.compatibility("table", "classes -1, 0, 1 (sentiment), -1 and 1, or + and -", "are classes", was=0)
def test_marks_that_are_classes(tmp_path):
    for labels in ([-1, 0, 1], [-1, 1], [-2, -1, 0, 1, 2], ["+", "-"]):
        path = write(tmp_path / "a.jsonl", [*labels[::-1], *labels])
        assert read_task(path)[0].classes == tuple(map(str, labels))


TARGETS = {"label": ([0, 1, 1], -1), "score": ([0.5, 4.0, 5.0], -1.0)}


@pytest.mark.compatibility(
    "table", "a test file whose every class is -1 or blank, as of GLUE from the hub", "read without labels", was=3
)
@pytest.mark.compatibility(
    "table", "a test file whose every score is -1 (STS-B from the hub)", "read without; was scored against -1", was=1
)
@pytest.mark.parametrize("target", TARGETS)
def test_a_test_file_without_a_single_target(target, tmp_path):
    values, mark = TARGETS[target]

    def file(name, targets):
        rows = "".join(f"{name} {k},{value}\n" for k, value in enumerate(targets))
        (tmp_path / f"{name}.csv").write_text(f"text,{target}\n{rows}")

    file("train", values)
    for marks in ([mark] * 3, [""] * 3):
        file("test", marks)
        assert [each.label for each in read_task(str(tmp_path))[1].splits["test"]] == [None] * 3
    file("test", [values[0], "", values[1]])
    with pytest.raises(DataError, match=f"line 3: {target} is missing"):
        read_task(str(tmp_path))
