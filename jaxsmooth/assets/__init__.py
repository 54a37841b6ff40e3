"""Pinned weights and text: the registry, the download, the cache, the readers."""

from .cache import asset_path as asset_path
from .cache import assets_table as assets_table
from .cache import cache_dir as cache_dir
from .cache import clear as clear
from .cache import verify as verify
from .fetch import fetch as fetch
from .registry import REGISTRY as REGISTRY
from .registry import Asset as Asset
from .registry import Distribution as Distribution
from .tables import parse_columns as parse_columns
from .texts import MalformedRowWarning as MalformedRowWarning
from .texts import count_texts as count_texts
from .texts import numbered_texts as numbered_texts
from .texts import read_rows as read_rows
from .texts import read_texts as read_texts
from .texts import sample_texts as sample_texts
from .texts import stream_texts as stream_texts
