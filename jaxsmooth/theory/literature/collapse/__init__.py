"""Where tokens go, what holds them apart, and how a state that has collapsed is told: statements of 2024 to 2026."""
