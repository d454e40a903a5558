"""Corpora as lhotse Shar folders, and the table of those that we know."""
