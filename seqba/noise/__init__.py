"""Keyed noise, as a model meets it: the noise of the pass that is computed, its copies, where they begin."""
