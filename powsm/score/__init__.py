"""Distances, rates and their intervals; reading what is scored.

chance        what a system that did not listen would score
decoded       the only reader of `<exp>/<profile>/<set>/<task>` and its references
distance      edit distances between phone sequences: PanPhon's numbers, thousands ...
intervals     uncertainty of rates: bootstrap intervals and the comparison of two ...
metrics       score the output of any system: phones, orthography, language
phone_reader  phones of any system's transcripts, by a named cleaning
rates         rates as views of summed counts, with intervals, breakdowns and ...
results       scores, decoding times and training history of an experiment
"""
