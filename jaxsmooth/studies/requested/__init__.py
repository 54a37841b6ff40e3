"""Metrics that `diagnose` measures where they are asked for: the user's own, and the literature's by name."""
