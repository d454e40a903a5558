"""Search, profiles, long recordings and alignment.

The modules:

    align           phones with times: of given phones, or of what the model hears
    align_files     alignments as files: Praat TextGrid, ELAN EAF, NIST CTM, JSON lines
    batch           what a model makes of a batch of utterances: one record each
    beams           the state of a batched beam search: running and finished hypotheses
    cached_decoder  a Transformer decoder that computes every key and value once
    ctc_paths       reading the CTC head alone: the best path, and a beam of prefixes
    ctc_prefix      CTC prefix scores for joint search
    dump_set        decode a dump folder: parts of ranks that can be killed, and merged
    forced          the likeliest CTC path that says given labels, in little memory
    longform        recordings of any length: windows for CTC, pieces cut at pauses
    profile         decode profiles: `conf/decode_*.yaml` names all that moves a score
    pronunciation   how well given phones were said
    recogniser      a trained model with its tokenizer: encoding, prompts, languages
    recordings      a model in hand: recordings in, results out
    search          batched attention decoding with a cache and joint CTC scores
    timing          when phones begin and end, of the frames that say them
    transcribe      transcribe recordings of any length, where asked with times
"""
