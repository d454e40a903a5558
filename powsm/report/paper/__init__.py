"""The tables of the paper: what they show, and filling them from experiments."""
