"""Distances, rates and their intervals; reading what is scored.

The modules:

    chance        what a system that did not listen would score
    decoded       the only reader of `<exp>/<profile>/<set>/<task>` and its references
    distance      edit distances between phone sequences: PanPhon's numbers
    edit_kernels  the compiled loops of distances, and how loops are compiled
    intervals     bootstrap intervals and the comparison of two systems
    metrics       score the output of any system: phones, orthography, language
    phone_reader  phones of any system's transcripts, by a named cleaning
    rates         rates as views of summed counts, with intervals and breakdowns
    results       scores, decoding times and training history of an experiment
"""
