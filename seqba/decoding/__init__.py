"""Beam search and sampling over a step function."""
