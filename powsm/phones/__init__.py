"""IPA text to phones: the one normaliser with its inventory, and what goes with it.

Tables are beside the module that reads them (phone_map.csv, alphabet_*.csv, ...).

    inventory    the phones and their features from PanPhon's table; phone_map.csv
    clusters     the phones of a letter or a tied pair, by the marks they hold
    segment      one word of IPA into phones, the strict policy
    released     the same as the public recipe did it
    normaliser   texts into phones, with an account of all that is left out
    slashed      phones as the model writes them, between slashes
    unknown      what a set lost of its IPA: counted, with examples, and limited
    allophones   the paper's allophones of English, applied to labels
    alphabets    phone alphabets of corpora (TIMIT's, Buckeye's, ...) in IPA
    xsampa       X-SAMPA as IPA: PanPhon's table and what is missing in it
    chart        classes of phones for a confusion table
    orthography  the text normalisation behind the ASR, G2P and P2G tasks
"""
