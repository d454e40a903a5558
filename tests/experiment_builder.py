"""A generated experiment folder with its dump folder, for tests of reports and tables.

Nothing is trained: hypotheses are references with known errors, audio is tones.
"""

import json
from pathlib import Path

import numpy as np
import soundfile
import yaml

from powsm.audio import SAMPLE_RATE
from powsm.files.datadir import write_scp
from powsm.score.distance import PhonePairs

SECONDS = 0.6

# utt_id -> language, reference, hypothesis by CTC; the errors: nothing, p -> b (voicing
# alone), a deletion, an insertion, and an empty hypothesis
PHONES = {
    "tone_a_eng": ("eng", ["p", "i"], ["p", "i"]),
    "tone_b_eng": ("eng", ["p", "a", "t"], ["b", "a", "t"]),
    "tone_c_spa": ("spa", ["m", "a", "s"], ["m", "a"]),
    "tone_d_spa": ("spa", ["k", "o"], ["k", "o", "n"]),
    "tone_e_spa": ("spa", ["t", "u"], []),
}
TEXTS = {utt_id: f"word {utt_id[5]}" for utt_id in PHONES}


def slashed(phones: list[str]) -> str:
    return "".join(f"/{phone}/" for phone in phones)


def make_dump(root: Path, set_name: str = "test_tone") -> Path:
    """Write `<root>/<set_name>` as stage 4 does, and the audio beside it."""
    folder = root / set_name
    audio = root / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    rows: dict[str, list[tuple[str, str]]] = {
        name: []
        for name in ("wav.scp", "utt2lang", "utt2speaker", "utt2num_samples", "text")
    }
    for number, (utt_id, (lang, ref, _)) in enumerate(PHONES.items()):
        path = audio / f"{utt_id}.wav"
        soundfile.write(
            path, 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time), SAMPLE_RATE
        )
        for task in ("asr", "g2p", "p2g", "pr"):
            example_id = f"{utt_id}_{task}"
            target = slashed(ref) if task in ("pr", "g2p") else TEXTS[utt_id]
            rows["wav.scp"].append((example_id, str(path)))
            rows["utt2lang"].append((example_id, lang))
            rows["utt2speaker"].append((example_id, f"speaker_{lang}"))
            rows["utt2num_samples"].append((example_id, str(len(time))))
            rows["text"].append(
                (example_id, f"<{lang}><{task}><notimestamps> {target}")
            )
    for name, lines in rows.items():
        write_scp(folder / name, lines)
    write_scp(folder / "ref.ipa", [(u, slashed(r)) for u, (_, r, _) in PHONES.items()])
    write_scp(folder / "ref.text", TEXTS.items())
    (folder / "normaliser.json").write_text(
        json.dumps(
            {"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}
        )
    )
    return folder


def write_hyps(exp: Path, profile: str, set_name: str, tag: str, texts: dict) -> Path:
    """Write `hyp.jsonl` and `timing.json` of one decoded set."""
    folder = exp / profile / set_name / tag
    folder.mkdir(parents=True)
    task = tag.partition("_")[0]
    with open(folder / "hyp.jsonl", "w", encoding="utf-8") as file:
        for utt_id, text in sorted(texts.items()):
            record = {
                "utt_id": utt_id,
                "lang_sym": f"<{PHONES[utt_id][0]}>",
                "task_sym": f"<{task}>",
                "text": text,
                "tokens": [],
                "score": -1.0,
                "seconds": SECONDS,
                "profile": "0" * 12,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    (folder / "timing.json").write_text(
        json.dumps({"audio_s": len(texts) * SECONDS, "compute_s": 0.3})
    )
    return folder


def make_results(set_name: str = "test_tone") -> list[dict]:
    """PER and PFER of the hypotheses above; the intervals are made up."""
    results = []
    for lang in ("all", "eng", "spa"):
        chosen = [p for p in PHONES.values() if lang in ("all", p[0])]
        pairs = PhonePairs(hyp=[h for _, _, h in chosen], ref=[r for _, r, _ in chosen])
        n_ref = int(pairs.n_ref.sum())
        errors = {
            "PER": pairs.edit_counts().sum(),
            "PFER": pairs.distances("feature").sum(),
            "PFER_chance": 0.6 * n_ref,  # made up, too
        }
        for metric, error in errors.items():
            value = 100 * float(error) / n_ref
            results.append(
                {
                    "set": set_name,
                    "lang": lang,
                    "task": "pr",
                    "decode": "ctc",
                    "profile": "ctc_greedy",
                    "metric": metric,
                    "value": value,
                    "low": max(0.0, value - 5),
                    "high": value + 5,
                    "n_utts": len(chosen),
                    "n_units": n_ref,
                }
            )
    for lang, value in (("all", 80.0), ("eng", 100.0), ("spa", 200 / 3)):
        n_utts = sum(lang in ("all", p[0]) for p in PHONES.values())
        results.append(
            {
                "set": set_name,
                "lang": lang,
                "task": "lid",
                "decode": "",
                "profile": "lid",
                "metric": "accuracy",
                "value": value,
                "low": value - 20,
                "high": min(100.0, value + 10),
                "n_utts": n_utts,
                "n_units": n_utts,
            }
        )
    return results


def make_history(n_epochs: int = 4) -> list[dict]:
    """A training history in which everything falls."""
    return [
        {
            "epoch": epoch,
            "updates": 50 * epoch,
            "seconds": 60.0 * epoch,
            "lr": 1e-3,
            "train_loss": 100 / epoch,
            "loss": 110 / epoch,
            "loss_ctc": 90 / epoch,
            "loss_att": 130 / epoch,
            "acc": 1 - 1 / (epoch + 1),
            "per_ctc": 100 / epoch,
            "pfer_ctc": 50 / epoch,
            **{f"loss_{t}": 100 / epoch + i for i, t in enumerate(("pr", "asr"))},
            **{f"acc_{t}": 0.1 * epoch - 0.05 * i for i, t in enumerate(("pr", "asr"))},
            **{f"per_ctc_{lang}": 100 / epoch + 5 for lang in ("eng", "spa")},
            **{f"pfer_ctc_{lang}": 50 / epoch + 5 for lang in ("eng", "spa")},
        }
        for epoch in range(1, n_epochs + 1)
    ]


def make_experiment(root: Path, name: str = "s2t_tiny") -> tuple[Path, Path]:
    """Write an experiment with its dump folder; (exp/<name>, dump/raw)."""
    dump, exp = root / "dump" / "raw", root / "exp" / name
    make_dump(dump)
    write_hyps(
        exp,
        "ctc_greedy",
        "test_tone",
        "pr_ctc",
        {utt_id: slashed(hyp) for utt_id, (_, _, hyp) in PHONES.items()},
    )
    # one of the five is taken for Italian
    langs = {utt_id: f"<{lang}>" for utt_id, (lang, _, _) in PHONES.items()}
    write_hyps(exp, "lid", "test_tone", "lid", langs | {"tone_e_spa": "<ita>"})
    (exp / "results.json").write_text(json.dumps(make_results()))
    (exp / "history.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in make_history())
    )
    (exp / "config.yaml").write_text(
        yaml.safe_dump(
            {"encoder": "e_branchformer", "seed": 42, "token_list": ["<eng>", "<spa>"]}
        )
    )
    (exp / "run.sh").write_text(
        '#!/usr/bin/env bash\ncd /recipe\nexec scripts/s2t.sh --nj 2 --stage 11 "$@"\n'
    )
    return exp, dump
