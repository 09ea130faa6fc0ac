"""Rows of a batch: which values of a nesting hold them, and their repetition; torch alone."""
