"""Decode a dump folder: parts of ranks that can be killed, merged into `hyp.jsonl`.

Batches are cut by length in a fixed order; a finished batch is appended whole to this
rank's part file, so that a killed run goes on where it was and ends with the same
bytes.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from powsm.audio import SAMPLE_RATE, WINDOW_S, AudioError
from powsm.decode.batch import (
    Item,
    cut_batches,
    decode_batch,
    items,
    record_of,
)
from powsm.decode.profile import BATCH_S, DecodeError, Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.samples import read_speech
from powsm.files.lock import owned
from powsm.files.whole import atomic_write, sweep_files, write_json
from powsm.languages import UNKNOWN_LANG_SYM
from powsm.model.frames import FrameGrid
from powsm.score.decoded import HYP_FILE, TIMING_FILE
from powsm.tasks import LID

log = logging.getLogger(__name__)


def _finished(part: Path) -> Iterator[dict]:
    """Records of a part file; a last line cut short by a kill is left out.

    Raises:
        DecodeError: another line is damaged.
    """
    if not part.exists():
        return
    with open(part, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if line.endswith(b"\n"):
                    yield json.loads(line)
            except ValueError as err:
                raise DecodeError(
                    f"{part}:{number}: damaged, no whole JSON; remove the file and run "
                    "stage 12 again"
                ) from err


def _key(profile: Profile, weights: str, todo: Sequence[Item]) -> str:
    """Short hash of all that decides the content of parts."""
    made_from = hashlib.sha256(f"{profile.digest()} {weights}".encode())
    for item in todo:
        made_from.update(repr(item).encode())
    return made_from.hexdigest()[:12]


def decode_set(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    folder: Path,
    out: Path,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Path:
    """Decode this rank's batches of a set; rank parts stay until `merge`.

    Args:
        folder: the set's dump folder.
        out: where `part.<rank>.jsonl` is written.

    Returns:
        The part file.

    Raises:
        OwnedError: another process is writing this part, or merging.
        DecodeError: the set has nothing for this task.
    """
    todo = items(folder, task)
    if not todo:
        raise DecodeError(f"{folder}: no utterance has a {task} example")
    _say_what_is_not_heard(profile, task, todo, folder)
    key = _key(profile, recogniser.weights, todo)
    todo = _told_what_the_model_knows(recogniser, profile, task, todo, folder)
    part = out / f"part.{key}.{rank}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    # ranks and the tasks of a job array work at once, but nobody merges meanwhile
    with owned(out, shared=True), owned(part):
        _decode_part(recogniser, profile, task, todo, part, rank, world_size)
    return part


def _say_what_is_not_heard(
    profile: Profile, task: str, todo: Sequence[Item], folder: Path
) -> None:
    """Count in the log the utterances that go on behind the window of a profile."""
    window = int(WINDOW_S * SAMPLE_RATE)
    longer = [item for item in todo if item.n_samples > window]
    if profile.window != "published" or not longer:
        return
    log.warning(
        "%s %s: of %d of %d utterances, such as %s, no more than %g s are heard, since "
        "decode profile %s says window: published",
        *(folder, task, len(longer), len(todo), longer[0].utt_id, WINDOW_S),
        profile.name,
    )


def _told_what_the_model_knows(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    todo: Sequence[Item],
    folder: Path,
) -> Sequence[Item]:
    """`<unk>` for languages that the model has no symbol for, counted in the log."""
    by_ctc = profile.decode == "ctc" and not recogniser.is_ctc_only
    if profile.lang != "own" or task == LID or by_ctc:
        return todo  # not given the language of the utterance
    known = recogniser.tokenizer.token_ids
    lacking = Counter(i.lang_sym for i in todo if i.lang_sym not in known)
    if not lacking:
        return todo
    log.warning(
        "%s %s: this model has no symbol for the language of %d of %d utterances, "
        "which are prompted %s: %s",
        folder,
        task,
        lacking.total(),
        len(todo),
        UNKNOWN_LANG_SYM,
        " ".join(f"{sym}={n}" for sym, n in lacking.most_common()),
    )
    return [
        replace(i, lang_sym=UNKNOWN_LANG_SYM) if i.lang_sym in lacking else i
        for i in todo
    ]


def _decode_part(
    recogniser: Recogniser,
    profile: Profile,
    task: str,
    todo: Sequence[Item],
    part: Path,
    rank: int,
    world_size: int,
) -> None:
    """Append what is missing to a rank's part."""
    done = list(_finished(part))
    finished = {record["utt_id"] for record in done}
    batches = _batches_of_rank(recogniser, profile, todo, rank, world_size)
    kept = {
        i.utt_id for b in batches if all(i.utt_id in finished for i in b) for i in b
    }
    with atomic_write(part) as file:
        file.writelines(_line(r) for r in done if r["utt_id"] in kept)
    started = time.monotonic()
    seconds = 0.0
    left = [batch for batch in batches if batch[0].utt_id not in kept]
    label = f"{part.parent.parent.name} {part.parent.name}"
    with open(part, "a", encoding="utf-8") as file:
        for batch in tqdm(left, desc=label, unit="batch", disable=None):
            records = _read_and_decode(recogniser, profile, task, batch)
            file.write("".join(_line(record) for record in records))
            file.flush()
            seconds += sum(item.n_samples for item in batch) / SAMPLE_RATE
    passed = time.monotonic() - started
    timing = part.with_name(part.name.replace("part.", "timing.", 1))
    if left:
        with open(timing, "a", encoding="utf-8") as file:
            file.write(json.dumps({"audio_s": seconds, "compute_s": passed}) + "\n")
        log.info(
            "%s: %d utterances, %.1f min of audio in %.1f s, real-time factor %.4f",
            label,
            len(todo),
            seconds / 60,
            passed,
            passed / max(seconds, 1e-9),
        )


def _batches_of_rank(
    recogniser: Recogniser,
    profile: Profile,
    todo: Sequence[Item],
    rank: int,
    world_size: int,
) -> list[list[Item]]:
    """The batches of one rank.

    Who has which utterance does not depend on `auto`: another rank, or the run that
    this one goes on from, may have a GPU of another size.
    """
    unit = BATCH_S if profile.batch_seconds == "auto" else profile.batch_seconds
    mine = sum(cut_batches(todo, profile, unit)[rank::world_size], [])
    return cut_batches(mine, profile, recogniser.batch_seconds(profile))


def _read_and_decode(
    recogniser: Recogniser, profile: Profile, task: str, batch: Sequence[Item]
) -> list[dict]:
    """Decode what can be read; audio that cannot gives an empty text and its error."""
    good, speech, records = [], [], []
    is_padded = profile.window == "published"
    shortest = 1 if is_padded else FrameGrid.of(recogniser.model).min_samples()
    is_levelled = profile.level == "usual"
    for item in batch:
        try:
            samples = read_speech(item.audio, shortest, is_levelled=is_levelled)
            speech.append(samples)
            good.append(item)
        except (AudioError, OSError) as err:
            log.warning("%s: %s", item.utt_id, err)
            unread = {"lang_sym": item.lang_sym, "text": "", "error": str(err)}
            asked = (profile, task, item.utt_id, item.lang_sym)
            records.append(record_of(recogniser, *asked) | unread)
    if good:
        records += decode_batch(recogniser, profile, task, good, speech)
    return records


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def merge(
    folder: Path, task: str, out: Path, *, profile: Profile, weights: str
) -> Path:
    """Join all parts into `hyp.jsonl` and `text`, sorted, each utterance once.

    Parts that a killed run left behind count only if it had the same settings, weights
    and utterances; all are removed.

    Args:
        folder: the set's dump folder.
        task: `pr asr g2p p2g lid`.
        out: where the parts are.
        profile: decoded with.
        weights: their short hash, `Recogniser.weights`.

    Raises:
        DecodeError: utterances are missing; some are named.
    """
    with owned(out, wait=True):
        sweep_files(out)
        return _merge(folder, task, out, profile, weights)


def _merge(folder: Path, task: str, out: Path, profile: Profile, weights: str) -> Path:
    todo = items(folder, task)
    key = _key(profile, weights, todo)
    records = {
        record["utt_id"]: record
        for part in sorted(out.glob(f"part.{key}.*.jsonl"))
        for record in _finished(part)
    }
    missing = sorted({item.utt_id for item in todo} - set(records))
    if missing:
        raise DecodeError(
            f"{out}: {len(missing)} of {len(todo)} utterances are missing "
            f"({' '.join(missing[:3])}); run stage 12 again"
        )
    failed = sum("error" in record for record in records.values())
    if failed:
        log.warning("%s: %d of %d could not be read", out, failed, len(records))
    order = sorted(records, key=lambda utt_id: utt_id.encode())
    with atomic_write(out / "text") as file:
        for utt_id in order:
            file.write(f"{utt_id} {records[utt_id]['text']}".rstrip() + "\n")
    timings = [
        timing
        for path in sorted(out.glob(f"timing.{key}.*.jsonl"))
        for timing in _finished(path)
    ]
    totals = {
        key: round(sum(t[key] for t in timings), 3) for key in ("audio_s", "compute_s")
    }
    write_json(out / TIMING_FILE, totals, indent=None)
    with atomic_write(out / HYP_FILE) as file:
        file.writelines(_line(records[utt_id]) for utt_id in order)
    for path in (*out.glob("part.*.jsonl"), *out.glob("timing.*.jsonl")):
        path.unlink()
    return out / HYP_FILE
