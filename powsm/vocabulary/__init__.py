"""Symbols, SentencePiece, the tokenizer, and sets of phones to decode with.

The modules:

    code_points  the CTC head taught Unicode code points of phones instead of phones
    extend       add to a vocabulary what a training set holds and it lacks
    nearest      the known phones that are nearest to unknown ones, by their features
    phone_sets   sets of phones to decode with: of a language in training, or a list
    symbols      symbols of the vocabulary: languages, tasks, times, phones
    tokenizer    the token list, and encoding as ESPnet does it
    train        learn a vocabulary from the orthography of a training set
"""
