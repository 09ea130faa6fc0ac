"""Fused and frugal computations: losses, products, linear layers and LSTMs. They draw nothing."""
