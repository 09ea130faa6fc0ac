"""Options of each command, which its file and its job in `seqba.cli.jobs` share; without torch."""
