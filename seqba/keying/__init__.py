"""Torch's own random functions, keyed for as long as a pass lasts: noise of models that hold nothing of seqba's."""
