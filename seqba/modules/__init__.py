"""A model's modules, and what other libraries wrap around it; torch alone."""
