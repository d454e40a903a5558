"""The S2T network, and finding, loading and extending trained ones.

The modules:

    batch       recordings, and the examples that are learned from each of them
    build       build a network to use it, without the slow imports of ESPnet's task
    espnet_tasks  which of ESPnet's tasks reads a configuration
    find        models by name: an experiment folder, a packed model, or a Hub tag
    frames      which stretch of audio an encoder frame stands for, read off the model
    light       ESPnet without PyTorch's compiler, for programs that only decode
    packing     rows of tokens laid end to end, so that a decoder skips padding
    phone_ctc   a CTC head over blank and phones alone, in place of one over all tokens
    s2t         the S2T model that encodes each recording once for all its task examples
    s2t_ctc     the encoder-only model (POWSM-CTC) over recordings and their examples
    start_from  begin with another model: its vocabulary and its weights
    weights     weights of a found model: read, and each parameter checked
"""
