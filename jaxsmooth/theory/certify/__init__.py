"""Theorems evaluated with rounding accounted for: the registry and the calculi."""
