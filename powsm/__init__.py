"""POWSM: a phonetic Whisper-style speech model, from data to scores.

Where to look; a module imports only from those before it (tests/test_layers.py):

    files, the Hub       files archives hub download
    languages, audio     languages audio
    phones, text         alphabets inventory segment allophones ipa orthography
    corpora -> data/     utterance datadir corpora tarindex shar chunks bigsort
                         audiocopy parts
    data/ -> dump/       filters tasks unknown dump
    data report          dataaudit dataplots datareport
    tokens, batches      phonesets tokenizer index batches
    scores, tables       features distance intervals rates transcripts alignments
                         score tables
    the model            ctc_prefix cached_decoder dataset packing phone_ctc model
                         config checkpoint finetune
    training             stats memory exchange resume litmodel epochs progress ranks
                         guards train
    decoding, times      beams search profile frames decode decodeset longform align
                         transcribe
    reports              report ablation
    cluster, costs       costs resources cluster preflight
    publishing           modelcard publish upload
"""

__version__ = "0.1.0"
