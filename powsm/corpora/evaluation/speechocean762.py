"""SpeechOcean762: English read by 250 speakers of Mandarin, phones judged by experts.

The paper's set, `test_speechocean762`, is KoelLabs' copy SpeechOceanNoTH, both of its
splits (2.32 h). From the original: both parts without the utterances that should have
[ð] or [θ], which are 2,262 of 5,000 and 2.355 h. `test_speechocean762_test` is the
corpus's own test part, with [ð] and [θ]: 2,500 utterances, 2.69 h. In both, canonical
phones are replaced by what the experts heard, and utterances are left out in which that
is unclear (`<unk>`) or near a phone only (`*`).

Licence: CC BY 4.0. https://www.openslr.org/101/

Layout: `scores.json` (or `resource/scores.json`), `WAVE/SPEAKER<n>/<utt>.WAV` and
`{train,test}/utt2spk`; or KoelLabs/SpeechOceanNoTH, see
`powsm.corpora.evaluation.published`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from powsm.audio import WINDOW_S
from powsm.corpora.evaluation.kaldi_folder import (
    CorpusError,
    LeftOut,
    Segment,
    Written,
    parse_json,
    write_segments,
)
from powsm.corpora.evaluation.published import write_published_or
from powsm.files.text import read_text
from powsm.phones.alphabets import read_alphabet, to_ipa, unstressed

ALPHABET = "arpabet"
LEFT_OUT_PHONES = frozenset({"DH", "TH"})


def prepare_speechocean762(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the set from KoelLabs' copy or the original."""
    return write_published_or(segments_of, source, out, allow_incomplete, WINDOW_S)


def prepare_speechocean762_test(
    source: Path, out: Path, *, allow_incomplete: bool = False
) -> Written:
    """Write the test part of the original."""
    left_out = LeftOut(allow_incomplete)
    segments = segments_of(Path(source), left_out, part="test")
    return write_segments(out, segments, left_out, max_duration_s=WINDOW_S)


def heard(word: dict[str, Any]) -> list[str]:
    """ARPABET of a word as it was pronounced; a deleted phone is left out.

    >>> heard({"phones": "L IY1 S", "mispronunciations":
    ...        [{"index": 0, "pronounced-phone": "D"},
    ...         {"index": 2, "pronounced-phone": "<DEL>"}]})
    ['D', 'IY']

    For one phone two may have been heard:

    >>> heard({"phones": "W ER0", "mispronunciations":
    ...        [{"index": 1, "pronounced-phone": "IH R"}]})
    ['W', 'IH', 'R']
    """
    phones = _canonical(word)
    for fault in word.get("mispronunciations") or ():
        phones[fault["index"]] = fault["pronounced-phone"].upper()
    said = " ".join(phones).split()
    return [unstressed(phone) for phone in said if phone != "<DEL>"]


def _canonical(word: dict[str, Any]) -> list[str]:
    phones = word["phones"]
    return phones.split() if isinstance(phones, str) else list(phones)


def segments_of(
    source: Path, left_out: LeftOut, part: str | None = None
) -> Iterator[Segment]:
    """The utterances of a part of the original, or of the paper's selection.

    Args:
        source: folder of the corpus.
        left_out: gets those that are left out, and why.
        part: the corpus's own `train` or `test`; None is the selection.

    Raises:
        CorpusError: scores, recordings or the list of a part are missing.
    """
    score_files = sorted(source.rglob("scores.json"))
    audio = {path.stem: path for path in source.rglob("WAVE/*/*.WAV")}
    if not score_files or not audio:
        missing = (
            "resource/scores.json" if not score_files else "WAVE/SPEAKER<n>/<utt>.WAV"
        )
        raise CorpusError(f"{source}: neither Parquet files nor {missing}")
    known = read_alphabet(ALPHABET)
    chosen = _ids_of(source, part) if part else None
    scores = _read_scores(score_files[0])
    expected = audio.keys() if chosen is None else chosen
    for utt_id in sorted(expected - {utt_id for utt_id, _ in scores}):
        left_out.add("no_transcript", utt_id)
    for utt_id, judged in scores:
        symbols = [phone for word in judged["words"] for phone in heard(word)]
        should_be = {p for word in judged["words"] for p in _canonical(word)}
        if chosen is not None and utt_id not in chosen:
            continue
        if utt_id not in audio:
            left_out.add("no_audio", utt_id)
        elif any(symbol == "<UNK>" or symbol.endswith("*") for symbol in symbols):
            left_out.add("unclear_phone", utt_id)
        elif chosen is None and LEFT_OUT_PHONES & should_be:
            left_out.add("th", utt_id)
        elif unknown := sorted(set(symbols) - set(known)):
            left_out.add(f"unknown_label:{unknown[0]}", utt_id)
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


def _ids_of(source: Path, part: str) -> frozenset[str]:
    """Utterances of the corpus's own `train` or `test`."""
    lists = sorted(source.rglob(f"{part}/utt2spk"))
    if not lists:
        raise CorpusError(
            f"{source}: no {part}/utt2spk, which says what the part holds"
        )
    return frozenset(line.split()[0] for line in read_text(lists[0]).splitlines())


def _read_scores(path: Path) -> list[tuple[str, dict[str, Any]]]:
    scores = parse_json(read_text(path), path)
    if not isinstance(scores, dict):
        raise CorpusError(f"{path}: no scores by utterance; fetch it again")
    return list(scores.items())
