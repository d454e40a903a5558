"""Packing an experiment, its model card, and uploading it."""
