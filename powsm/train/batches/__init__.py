"""Which utterances make which batch.

options   how utterances become batches and batches become updates
plan      all batches of a pass: by length, shuffled, known from a counter
sampling  which utterances come in a pass, and how often: by language, and by weight
"""
