"""What a model and a loss are looked at for before a run: whether the promise holds for them, and why not."""
