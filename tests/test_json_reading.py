"""JSON that is nested deeply is refused before anything recurses."""

import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth.json_reading import DEEPEST, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.booleans(), st.sampled_from(["utf-8", "utf-16", "utf-32"]))
def test_it_reads_what_was_written(value, ascii_only, encoding):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert loads(text) == value
    if not any(0xD800 <= ord(character) < 0xE000 for character in text):
        assert loads(text.encode(encoding)) == value


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a\\"]":', "}]")])
def test_depth_is_counted_exactly(opening, closing):
    brackets = sum(opening.count(bracket) for bracket in "[{") - opening.count("]")
    brackets += opening.count("\\")  # the third opening has a bracket inside a string, which is none
    fits = DEEPEST // brackets
    innermost = json.dumps(["]}[{" * 300][0])
    loads(opening * fits + innermost + closing * fits)
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(opening * (fits + 1) + innermost + closing * (fits + 1))


def test_wide_is_not_deep():
    value = [[{"a": [k]}] for k in range(1000)]
    assert loads(json.dumps(value)) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '["a]", {"b": '])
def test_nothing_fails_in_the_garbage_collector(opening):
    """A collection at the end of the stack calls what is registered for it, jax's own too, and that fails unseen."""
    seen = []

    def callback(phase, info):
        def deeper(levels):
            return levels and deeper(levels - 1)

        seen.append(deeper(20))

    thresholds = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1)
    try:
        for _ in range(20):
            with pytest.raises(ValueError, match="nested too deeply"):
                loads(opening * 100_000)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)
    assert seen
