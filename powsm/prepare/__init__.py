"""Stages 1 to 4: from shards to data directories to task-prompted examples."""
