"""Distances, rates and their intervals; reading what is scored."""
