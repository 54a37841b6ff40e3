"""What keeps long work safe: a run alone in its folder, stopped where it diverges, saved where it is asked to end."""
