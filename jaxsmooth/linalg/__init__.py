"""Numerical linear algebra that knows no theorem: largest eigenvalues, enclosures, norms."""
