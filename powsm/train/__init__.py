"""Batches, the Lightning module and the loop around ESPnet's model."""
