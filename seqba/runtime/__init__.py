"""Where a process computes, and its memory."""
