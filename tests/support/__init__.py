"""What several tests share: models, matrices, references from independent sources, frozen answers."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The checkout."""
