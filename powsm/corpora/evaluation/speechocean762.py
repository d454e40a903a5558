"""SpeechOcean762: English read by 250 speakers of Mandarin, phones judged by experts.

The paper's set is KoelLabs' copy SpeechOceanNoTH, both of its splits (2.32 h): without
utterances whose transcription holds [ð] or [θ], and without some that the experts were
in doubt about. From the original, canonical phones are replaced by what the experts
heard, and utterances are left out in which they heard something unclear (`<unk>`) or
near a phone only (`*`), and those with [ð] or [θ]. The copy drops more, by the scores,
in a way that is not written down: expect other hours.

Licence: CC BY 4.0. https://www.openslr.org/101/

Layout: `scores.json` (or `resource/scores.json`), `WAVE/SPEAKER<n>/<utt>.WAV` and
`{train,test}/utt2spk`; or KoelLabs/SpeechOceanNoTH, see
`powsm.corpora.evaluation.published`.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    Segment,
    Written,
    parse_json,
    write_segments,
)
from powsm.corpora.evaluation.published import published_segments
from powsm.files.text import read_text
from powsm.phones.alphabets import read_alphabet, to_ipa, unstressed

ALPHABET = "arpabet"
LEFT_OUT_PHONES = frozenset({"DH", "TH"})


def prepare_speechocean762(source: Path, out: Path) -> Written:
    """Write the set from KoelLabs' copy or the original."""
    left_out: Counter[str] = Counter()
    segments = published_segments(source, "eng", left_out)
    if segments is None:
        segments = _segments(Path(source), left_out)
    return write_segments(out, segments, left_out, max_duration_s=WINDOW_S)


def heard(word: dict[str, Any]) -> list[str]:
    """ARPABET of a word as it was pronounced; a deleted phone is not there.

    >>> heard({"phones": "L IY1 S", "mispronunciations":
    ...        [{"index": 0, "pronounced-phone": "D"},
    ...         {"index": 2, "pronounced-phone": "<DEL>"}]})
    ['D', 'IY']
    """
    phones = word["phones"]
    phones = phones.split() if isinstance(phones, str) else list(phones)
    for fault in word.get("mispronunciations") or ():
        phones[fault["index"]] = fault["pronounced-phone"].strip().upper()
    return [unstressed(phone) for phone in phones if phone and phone != "<DEL>"]


def _segments(source: Path, left_out: Counter[str]) -> Iterator[Segment]:
    found = sorted(source.rglob("scores.json"))
    audio = {path.stem: path for path in source.rglob("WAVE/*/*.WAV")}
    if not found or not audio:
        raise CorpusError(
            f"{source}: neither Parquet files nor scores.json with WAVE/*/*.WAV"
        )
    known = read_alphabet(ALPHABET)
    for utt_id, judged in _read_scores(found[0]):
        symbols = [phone for word in judged["words"] for phone in heard(word)]
        if utt_id not in audio:
            left_out["no_audio"] += 1
        elif any(symbol == "<UNK>" or symbol.endswith("*") for symbol in symbols):
            left_out["unclear_phone"] += 1
        elif LEFT_OUT_PHONES & set(symbols):
            left_out["th"] += 1
        elif unknown := sorted(set(symbols) - set(known)):
            left_out[f"unknown_label:{unknown[0]}"] += 1
        else:
            yield Segment(
                key=utt_id,
                audio=audio[utt_id],
                ipa=to_ipa(symbols, ALPHABET),
                raw=" ".join(symbols),
                lang="eng",
                speaker=audio[utt_id].parent.name,
                text=judged["text"],
            )


def _read_scores(path: Path) -> list[tuple[str, dict[str, Any]]]:
    scores = parse_json(read_text(path), path)
    if not isinstance(scores, dict):
        raise CorpusError(f"{path}: no scores by utterance; fetch it again")
    return list(scores.items())
