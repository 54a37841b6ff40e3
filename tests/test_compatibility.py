"""docs/compatibility.md says what the tests say."""

from support import ROOT, compatibility


def test_the_page_is_that_of_the_tests():
    path = ROOT / "docs" / "compatibility.md"
    assert path.read_text(encoding="utf-8") == compatibility.page(), "write it anew: make compatibility"
