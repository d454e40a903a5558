"""Jobs, ranks and checks before a run."""
