"""Where the tokens go: `converge --map` as files, figures and words."""
