"""A model in hand: recordings in, results out.

The modules:

    model      `powsm.load`: transcribing, aligning, languages, emissions
    question   what is asked: a task, a language, a way to decode
    stretches  recordings of which only the stretch asked for is in memory
    samples    what is taken for a recording: paths, files, arrays
    words      words with their phones: from IPA, by the model's ear, or by espeak-ng
    aligned    words and phones of a recording with their times, and their files
    baseline   speech recognition by models of others, OWLS and OWSM-CTC
    result     what was heard: text, JSON, TextGrid, CTM, CSV, SRT and EAF
"""
