"""Training: one update, the loop around it, schedules, checkpoints and logs."""
