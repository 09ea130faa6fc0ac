"""From text to batches: dictionaries, memory-mapped corpora in fairseq's layout, and token-budget batches of pairs."""
