#!/usr/bin/env python3
"""Speed and exactness of scoring, as one JSON line.

ratio_kernel: PanPhon's time a pair over ours, from phones that are segmented already.
ratio_text: the same from raw strings, reading them included.
max_abs_diff: largest difference of feature and Hamming distances from PanPhon's.

Pairs have 55 phones a side. Words recur as in a language (Zipf), and a tenth of the
phones of a hypothesis is wrong; were every word new, ratio_text would be about half.
PanPhon and ours take turns on one core; medians of CPU time. --scale adds scale_s:
seconds (wall) to score 100,000 utterances of 60 phones in 20 languages, from slashed
text to all rates and all intervals, with the threads this machine has.
"""

import argparse
import json
import random
import time
import warnings
from itertools import accumulate

from powsm.score.distance import PhonePairs
from powsm.score.metrics import score_phones
from powsm.score.phone_reader import PhoneReader

warnings.filterwarnings("ignore", category=SyntaxWarning, module="panphon")

N_PHONES = 55
N_PANPHON, N_OURS = 10, 1000  # pairs a round: PanPhon needs a thousand times as long
VOCABULARY = 20_000  # words
# What speech is made of: phones of several languages, with diacritics, ties and length.
PHONES = (
    "p b t d k ɡ q ʔ m n ŋ ɲ r ɾ f v s z ʃ ʒ x χ h l j w ɹ θ ð i y ɨ u ɪ ʊ e ø ə o ɛ ɔ "
    "æ a ɑ ʌ pʰ tʰ kʰ t͡s t͡ʃ d͡ʒ t̪ d̪ s̪ tʲ lʲ nʲ iː uː aː eː oː ẽ ã ɔ̃ l̩ n̩ kʼ ɓ ɗ"
).split()

Utterance = list[list[str]]  # phones by word


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--scale", action="store_true", help="add scale_s")
    options = parser.parse_args()
    result = compare_with_panphon(rounds=9 if options.quick else 31)
    if options.scale:
        result["scale_s"] = round(time_scale(n_utts=100_000, n_phones=60), 1)
    print(json.dumps(result))


class Speaker:
    """Makes utterances of words that recur, and hypotheses of them."""

    def __init__(self) -> None:
        self.rng = random.Random(0)
        self.words = [
            self.rng.choices(PHONES, k=self.rng.randint(1, 8))
            for _ in range(VOCABULARY)
        ]
        self.weights = list(accumulate(1 / rank for rank in range(1, VOCABULARY + 1)))

    def say(self, n_phones: int) -> Utterance:
        words: Utterance = []
        while n_phones > 0:
            (word,) = self.rng.choices(self.words, cum_weights=self.weights)
            words.append(word[:n_phones])
            n_phones -= len(words[-1])
        return words

    def mishear(self, words: Utterance) -> Utterance:
        return [
            [p if self.rng.random() > 0.1 else self.rng.choice(PHONES) for p in word]
            for word in words
        ]


def spelled(words: Utterance) -> str:
    return " ".join("".join(word) for word in words)


def slashed(words: Utterance) -> str:
    return "".join(f"/{phone}/" for word in words for phone in word)


def compare_with_panphon(rounds: int) -> dict:
    """Time PanPhon and ours in alternating rounds."""
    from panphon.distance import Distance

    panphon = Distance()
    speaker = Speaker()
    reader = PhoneReader()
    measure(reader, ["pa"], ["ba"])  # compile
    times: dict[str, list[float]] = {"panphon": [], "kernel": [], "text": []}
    differences = [0.0]
    for _ in range(rounds):
        said = [speaker.say(N_PHONES) for _ in range(N_OURS)]
        ref = [spelled(words) for words in said]
        hyp = [spelled(speaker.mishear(words)) for words in said]
        few = list(zip(hyp[:N_PANPHON], ref[:N_PANPHON], strict=True))
        start = time.process_time()
        features = [panphon.feature_edit_distance(h, r) for h, r in few]
        times["panphon"].append((time.process_time() - start) / N_PANPHON)
        pairs, kernel_s, text_s = measure(reader, hyp, ref)
        times["kernel"].append(kernel_s / N_OURS)
        times["text"].append(text_s / N_OURS)
        hamming = [panphon.hamming_feature_edit_distance(h, r) for h, r in few]
        for metric, expected in (("feature", features), ("hamming", hamming)):
            ours = pairs.distances(metric)[:N_PANPHON]
            differences.append(max(abs(ours - expected)))
    median = {name: sorted(seconds)[rounds // 2] for name, seconds in times.items()}
    return {
        "ratio_kernel": round(median["panphon"] / median["kernel"]),
        "ratio_text": round(median["panphon"] / median["text"]),
        "max_abs_diff": float(max(differences)),
        "panphon_ms": round(1e3 * median["panphon"], 2),
        "kernel_us": round(1e6 * median["kernel"], 2),
        "text_us": round(1e6 * median["text"], 2),
    }


def measure(
    reader: PhoneReader, hyp: list[str], ref: list[str]
) -> tuple[PhonePairs, float, float]:
    """The pairs, seconds from phones to distances, and seconds from text."""
    start = time.process_time()
    hyp_phones = [reader.read(text).phones for text in hyp]
    ref_phones = [reader.read(text).phones for text in ref]
    segmented = time.process_time()
    pairs = PhonePairs(hyp=hyp_phones, ref=ref_phones, n_threads=1)
    pairs.distances("feature")
    end = time.process_time()
    return pairs, end - segmented, end - start


def time_scale(n_utts: int, n_phones: int) -> float:
    """Seconds to score a large set."""
    speaker = Speaker()
    ref, hyp, langs = {}, {}, {}
    for n in range(n_utts):
        utt_id = f"x_{n:06d}"
        words = speaker.say(n_phones)
        ref[utt_id] = slashed(words)
        hyp[utt_id] = slashed(speaker.mishear(words))
        langs[utt_id] = f"l{n % 20:02d}"
    start = time.perf_counter()
    scores = score_phones(hyp=hyp, ref=ref, langs=langs)
    scores.records(set_name="x", task="pr", decode="ctc")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
