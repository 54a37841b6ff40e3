"""The table of assets: consistent rows, and a list of names for whoever gets one wrong."""

import re

import pytest

from jaxsmooth.assets import REGISTRY, asset_path, clear, fetch
from jaxsmooth.errors import AssetError


def test_registry_rows_are_consistent():
    for name, asset in REGISTRY.items():
        assert asset.name == name
        assert re.fullmatch(r"[0-9a-f]{64}", asset.distribution.sha256)
        assert asset.distribution.filename.lower().startswith(asset.distribution.package.lower().replace("-", "_"))
        assert asset.licence
        assert asset.author
    assert {"minilm-l6", "movie-reviews", "amazon-reviews", "tweets", "nyt-editorials"} <= set(REGISTRY)


@pytest.mark.usefixtures("cache")
def test_unknown_name_lists_the_names():
    for call in (fetch, asset_path, clear):
        with pytest.raises(AssetError, match=r"'nonsense'.*minilm-l6, e5-small-q4, .*antiberty, .*movie-reviews"):
            call("nonsense")
