"""BLEU in its three forms, and the translation of a whole split."""
