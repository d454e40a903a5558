"""Phones: the inventory, the normaliser, alphabets of other tools, orthography."""
