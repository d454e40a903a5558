"""A data directory as stage 1 writes it, from a few fields an utterance."""

from collections.abc import Mapping
from pathlib import Path

from powsm.files.datadir import write_kaldi_speakers, write_scp

FILES = {
    "wav.scp": "audio",
    "text": "text",
    "text.ipa": "ipa",
    "text.ipa_clean": "ipa_clean",
    "utt2lang": "lang",
    "utt2speaker": "speaker",
    "utt2num_samples": "n_samples",
}


def make_data_dir(directory: Path, rows: Mapping[str, Mapping[str, object]]) -> Path:
    """Write `data/<set>` from {utt_id: {field: value}}.

    Fields left out: two seconds of a shard, text "Paw!", IPA "pɔː", one speaker, the
    language at the end of the id; simplified labels are always "pɔ".
    """
    full = {}
    for utt_id, fields in sorted(rows.items()):
        full[utt_id] = {
            "audio": f"downloads/x.tar:{512 * len(full)}:1000",
            "text": "Paw!",
            "ipa": "pɔː",
            "ipa_clean": "pɔ",
            "lang": utt_id[-3:],
            "speaker": "spk1",
            "n_samples": 32_000,
        } | dict(fields)
    for name, field in FILES.items():
        column = [(utt_id, str(row[field])) for utt_id, row in full.items()]
        write_scp(directory / name, column)
    write_kaldi_speakers(directory)
    return directory


def odd_one_out(directory: Path) -> Path:
    """Thirty plain utterances of 10 phones/s, and one of each kind of trouble."""
    second = 16_000
    plain = {"text": "ja null", "ipa": "pata" * 5, "n_samples": 2 * second}
    rows: dict[str, dict[str, object]] = {f"cv_{i:03d}_deu": plain for i in range(30)}
    rows["cv_100_deu"] = {"text": "ja", "ipa": "pata" * 15, "n_samples": second}
    rows["cv_101_deu"] = {"text": "", "ipa": "pa中", "n_samples": 8 * second}
    rows["cv_102_rus"] = {"text": "да yes", "ipa": "da", "n_samples": second}
    return make_data_dir(directory, rows)
