"""Numbers that are a function of a key: Philox, and masks made of them; torch alone."""
