"""The contents page: what `dir`, a type checker and an import see of jaxsmooth is the same."""

import ast
import tomllib

import pytest
from support import ROOT

import jaxsmooth

STUB = ast.parse((ROOT / "jaxsmooth" / "__init__.pyi").read_text(encoding="utf-8"))
IMPORTS = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
NAMES = {alias.asname: (node.module, alias.name) for node in IMPORTS for alias in node.names}


def test_dir_lists_what_the_stub_declares():
    assert set(dir(jaxsmooth)) == set(jaxsmooth.__all__) == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_leads_where_the_stub_says(name):
    module, attribute = NAMES[name]
    found = getattr(jaxsmooth, name)
    if isinstance(found, type(jaxsmooth)):
        assert found.__name__ == ".".join(filter(None, ("jaxsmooth", module, attribute)))
    else:
        source = __import__(f"jaxsmooth.{module}", fromlist=[attribute])
        assert found is getattr(source, attribute)
        assert name == attribute


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="jaxsmooth attribute nothing"):
        jaxsmooth.nothing  # noqa: B018


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert jaxsmooth.__version__ == project["version"]
