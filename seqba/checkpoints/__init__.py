"""Checkpoint files, models from them, and means over them: what inference needs of training."""
