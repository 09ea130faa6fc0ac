"""What models are worth: BLEU, perplexity and accuracy."""
