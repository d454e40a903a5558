"""Decode recordings of any length that are in no data folder.

    powsm transcribe --model exp/x --profile conf/decode_attention.yaml \\
        --lang eng --out talk.jsonl talk.wav

Writes a JSON object a line: the text, and where the decoder took part its pieces with
their times. --align talk_times adds phones with times: `segments` in that object, and a
Praat TextGrid of each recording in the folder talk_times. A recording that cannot be
used is named and left out.
"""

import argparse
import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from powsm.audio import SAMPLE_RATE, WINDOW_S, AudioError
from powsm.cli.options import MODEL, add_shared
from powsm.errors import PowsmError
from powsm.files.whole import atomic_write
from powsm.languages import lang_code, lang_sym
from powsm.tasks import TASKS

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--model", required=True, help=MODEL)
    add_shared(parser, "--model_file")
    add = parser.add_argument
    add("--profile", type=Path, required=True, help="conf/decode_*.yaml")
    add("--task", choices=TASKS, help="default: the profile's first")
    add("--lang", default="unk", help="code or name of the language; default: unknown")
    phones = "let only these phones out: those of a language in training, or of a file"
    add("--phones", help=phones)
    add("--trim_silence", action="store_true", help="at both ends; default: keep it")
    add("--align", type=Path, metavar="FOLDER", help="write the times of phones there")
    add("--window_s", type=float, default=WINDOW_S, help="seconds encoded at once")
    add("--overlap_s", type=float, help="seconds windows share; default: 4")
    add_shared(parser, "--device", default="cpu", help="cpu or cuda")
    add("--out", type=Path, required=True, help="file of JSON lines")
    add("audio", nargs="+", help="WAV, FLAC, OGG or MP3, one channel")


def run(options: argparse.Namespace) -> None:
    lang = "unk" if options.lang == "unk" else lang_code(options.lang)
    if lang is None:
        raise PowsmError(f"--lang {options.lang}: no such language; try ISO 639-3")
    names = Counter(Path(path).stem for path in options.audio)
    if twice := sorted(name for name, n in names.items() if n > 1):
        raise PowsmError(f"several recordings are named {' '.join(twice)}; rename them")
    from powsm.decode.profile import Profile, phone_set
    from powsm.model.find import find_model

    profile = Profile.load(options.profile)
    task = options.task or profile.tasks[0]
    profile = replace(profile, tasks=(task,))
    if options.phones:
        profile = replace(profile, phones=phone_set(options.phones))
    model = find_model(options.model, options.model_file)
    log.info("%s", model.describe())
    records, durations_s = transcribe_files(options, model, profile, lang)
    if not records:
        raise PowsmError("none of the recordings could be used")
    with atomic_write(options.out) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    if options.align:
        from powsm.decode.align_files import Segment, write_alignments

        alignments = {
            record["utt_id"]: [Segment(**segment) for segment in record["segments"]]
            for record in records
        }
        write_alignments(options.align, alignments, durations_s)
    log.info("%d of %d recordings in %s", len(records), len(options.audio), options.out)


def transcribe_files(options, model, profile, lang: str) -> tuple[list[dict], dict]:
    """A record of each recording that can be used, and durations in s by utt_id."""
    from tqdm import tqdm

    from powsm.decode.batch import read_speech
    from powsm.decode.longform import trim_silence
    from powsm.decode.recogniser import Recogniser
    from powsm.decode.transcribe import transcribe
    from powsm.model.frames import FrameGrid

    recogniser = Recogniser.load(model, options.device)
    shortest = FrameGrid.of(recogniser.model).min_samples()
    asked = {
        "lang_sym": lang_sym(lang),
        "window_s": options.window_s,
        "with_times": options.align is not None,
    }
    if options.overlap_s is not None:
        asked["overlap_s"] = options.overlap_s
    (task,) = profile.tasks
    records, durations_s = [], {}
    for path in tqdm(options.audio, desc="transcribe", unit="file", disable=None):
        asked["utt_id"] = utt_id = Path(path).stem
        try:
            speech = read_speech(path, shortest)
        except AudioError as err:
            log.warning("%s", err)
            continue
        durations_s[utt_id] = len(speech) / SAMPLE_RATE
        start_s = 0.0
        if options.trim_silence:
            speech, start_s = trim_silence(speech)
        records.append(
            transcribe(recogniser, profile, task, speech, start_s=start_s, **asked)
        )
    return records, durations_s
