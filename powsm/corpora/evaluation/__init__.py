"""Evaluation sets with human phones, each from its published form."""
