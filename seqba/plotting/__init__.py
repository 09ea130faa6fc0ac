"""Curves of training runs: their logs, the means over seeds, and the picture."""
