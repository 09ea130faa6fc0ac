"""Models: plain numbers in, tensors out."""
