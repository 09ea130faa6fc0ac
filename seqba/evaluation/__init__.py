"""Evaluation of models: BLEU, perplexity and accuracy."""
