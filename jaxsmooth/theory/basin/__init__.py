"""A certified basin of collapse: inputs of any length that provably converge to equal tokens. Proofs: docs/basin.md."""
