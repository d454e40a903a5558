"""Whole files or none, data directories, archives, and sorting beyond memory."""
