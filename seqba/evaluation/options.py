"""Choices of an evaluation, under fairseq's names where it has them."""

AVERAGES = ("probabilities", "logits")
"""What is averaged over views of a picture."""

SCORING_MAX_TOKENS = 36_000
"""Tokens of a batch of text where nothing else is said, as in fairseq."""
