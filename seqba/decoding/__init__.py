"""Beam search and sampling over a step function: the model only says what may come next."""
