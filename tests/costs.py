"""What a corpus of a given size takes: disk by stage, memory of the hungry ones.

The READMEs' tables of costs are compared with these estimates, and the estimates with
what the stages write on a generated corpus (tests/test_costs.py).
"""

from dataclasses import dataclass

from powsm.tasks import PUBLISHED_TASKS

N_TASKS = len(PUBLISHED_TASKS)  # examples of an utterance
ADAM_STATES = 2  # numbers that AdamW keeps for each parameter
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Corpus:
    """A corpus by its number of utterances and mean bytes of what is said of one.

    Attributes:
        utterances: in all sets.
        utt_id: `<corpus>_<recording>_<lang>`.
        speaker: in utt2speaker.
        path: value of wav.scp, `<shard>.tar:<offset>:<size>`.
        text: orthography.
        ipa: transcription as the corpus has it.
        clean: IPAPack++'s simplified form of it.
        phones: `/x/` after `/y/`, of a PR example.
    """

    utterances: int
    utt_id: float
    speaker: float
    path: float
    text: float
    ipa: float
    clean: float
    phones: float


# The number is published (ZIPA, table 1). The means are guesses for 7.4 s of speech,
# about 14 letters and 11 phones a second, and for paths as stage 0 makes them.
IPAPACK_PLUS = Corpus(
    utterances=8_289_886,
    utt_id=32,
    speaker=24,
    path=72,
    text=115,
    ipa=150,
    clean=130,
    phones=280,
)


def data_bytes(corpus: Corpus) -> float:
    """Stage 1: the nine files of `data/<set>` and the parts they are merged from."""
    values = (corpus.path, corpus.text, corpus.ipa, 3, 6, corpus.speaker, corpus.clean)
    files = sum(corpus.utt_id + 2 + value for value in values)
    speakers = 2 * (2 * corpus.utt_id + 2)  # utt2spk and spk2utt
    part = corpus.utt_id + sum(values) + len(values) + 1
    return corpus.utterances * (files + speakers + part)


def example_bytes(corpus: Corpus) -> dict[str, float]:
    """Mean bytes of an example's line in each file of `dump/raw/<set>`."""
    either = (corpus.phones + corpus.text) / 2  # two tasks write phones, two write text
    key = corpus.utt_id + len("_asr") + 2  # with a space and a newline
    return {
        "wav.scp": key + corpus.path,
        "text": key + len("<eng><asr><notimestamps> ") + either,
        "text.prev": key + (len("<na>") + either) / 2,  # two tasks are prompted
        "text.ctc": key + corpus.phones,
        "utt2lang": key + 3,
        "utt2num_samples": key + 6,
        "utt2speaker": key + corpus.speaker,
        "utt2spk": 2 * key - 2,
        "spk2utt": 2 * key - 2,
    }


def dump_bytes(corpus: Corpus) -> float:
    """Stage 4, with the index that training makes: where each utterance begins in four
    files, and how long it is."""
    index = 8 * 4 + 8
    return corpus.utterances * (N_TASKS * sum(example_bytes(corpus).values()) + index)


def experiment_bytes(parameters: float, keep: int, averages: int) -> float:
    """Stage 11: models in float32 and two checkpoints with the optimiser's states.

    Args:
        keep: models of epochs that are kept, the last one not counted.
        averages: averaged models that are written on the way.
    """
    models = keep + 1 + averages
    return FLOAT32 * parameters * (models + 2 * (1 + ADAM_STATES))


def stock_loader_bytes(corpus: Corpus) -> float:
    """Memory of one process of ESPnet's own loop: four files as Python dictionaries.

    An entry takes 120 bytes for two strings and the table, and 1.3 a byte of the file,
    as phones are stored in two bytes a character. Measured on ESPnet 202611.
    """
    lines = example_bytes(corpus)
    files = ("wav.scp", "text", "text.prev", "text.ctc")
    entries = sum(120 + 1.3 * lines[name] for name in files)
    return corpus.utterances * N_TASKS * entries


def sentencepiece_bytes(corpus: Corpus) -> float:
    """Memory of stage 5, whose suffix array is over all text at once: 41 bytes a
    character (SentencePiece 0.2, `train_extremely_large_corpus`)."""
    return 41 * corpus.utterances * corpus.text
