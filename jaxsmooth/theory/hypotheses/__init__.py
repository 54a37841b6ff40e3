"""Hypotheses of theorems, decided for given data with rounding accounted for; docs/hypotheses.md."""
