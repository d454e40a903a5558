"""How well given phones were said.

The modules:

    goodness  two scores of each phone: at its frames, and free of any alignment
    replaced  CTC sums over all paths with one phone replaced or left out
    worst     the phones of many recordings, the worst said first
"""
