"""Transcribe recordings: files, folders, and - for standard input.

    powsm transcribe talk.wav                            # IPA on standard output
    powsm transcribe --format textgrid --out times talks/
    powsm transcribe --task asr --lang ita --format srt film.mp4

With --format or --out each recording has a file of its own, beside it or below --out,
written when it is done; done ones are skipped. A recording that cannot be used is named
and left out, and the status is then 1.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from powsm.audio import SAMPLE_RATE, WINDOW_S
from powsm.audio_files import printable
from powsm.cli.options import number, refuse_unused
from powsm.cli.recordings.paths import (
    Faults,
    RecordingsError,
    Source,
    add_model,
    is_quiet,
    is_same,
    is_there,
    load_model,
    place_of,
    results_go_to,
    say_done,
    sources_of,
    text_of,
)
from powsm.decode.profile import (
    LEVELS,
    Profile,
    default_profile,
    find_profile,
    for_task,
)
from powsm.decode.recordings.result import ENDINGS, WITH_SLASHES, check_format, render
from powsm.errors import PowsmError
from powsm.files.audio_channels import CHANNELS, SIDES
from powsm.files.whole import write_whole
from powsm.tasks import PHONES, TASKS, tasks_writing
from powsm.vocabulary.phone_sets import phone_set

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="recording, folder, or -")
    add_model(parser)
    add("--task", choices=TASKS, default="pr", help="pr: phones (default); asr: words")
    add("--lang", default="unk", help="code or name; unk (default), or auto")
    add("--text", help="what g2p or p2g reads; default: NAME.txt beside each recording")
    how = "name or file of a decode profile; default: ctc_greedy, for words attention, "
    how += "of a model without a decoder ctc_tasks"
    add("--profile", help=how)
    phones = "only these: a list, a language of training, a file, a CSV (of a folder)"
    add("--phones", help=phones)
    add("--channel", choices=CHANNELS, default="mix", help="of several (default: mix)")
    add("--format", choices=ENDINGS, help="of the files; default: txt")
    add("--out", type=Path, help="folder for them; default: beside each recording")
    add("--force", action="store_true", help="write over files that are there")
    add("--slashes", action="store_true", help="phones as tokens: /p//a/")
    add("--trim_silence", action="store_true", help="at both ends; default: keep it")
    length = {"type": number(above=True)}
    level = "own, or usual: make quiet recordings louder; default: as the profile says"
    add("--level", choices=LEVELS, help=level)
    add("--window_s", **length, default=WINDOW_S, help="seconds encoded at once")
    add("--overlap_s", **length, default=4.0, help="seconds that windows share")


@dataclass(frozen=True)
class _Part:
    """A recording, or a channel of it, that is read."""

    source: Source
    speech: object  # Tensor or Recording
    target: Path | None
    side: str = ""  # which channel

    @property
    def name(self) -> str:
        """As a line of standard output begins."""
        name = "-" if self.source.is_stdin else str(self.source.path)
        return f"{name} {self.side}" if self.side else name

    @property
    def utt_id(self) -> str:
        """What its result calls it."""
        return f"{self.source.name}.{self.side}" if self.side else self.source.name

    @property
    def seconds(self) -> float:
        return len(self.speech) / SAMPLE_RATE


def run(options: argparse.Namespace) -> None:
    form = options.format or "txt"
    check_format(form, options.task)
    _check_question(options)
    sources = sources_of(options.paths)
    if options.text is not None and len(sources) > 1:
        raise PowsmError(
            f"--text is of one recording and there are {len(sources)}; write NAME.txt "
            "beside each"
        )
    targets = results_go_to(options, sources, ENDINGS[form])
    why = f"{options.task} as {form} has no text of phones"
    has_phones = options.task in tasks_writing(PHONES) and form in WITH_SLASHES
    refuse_unused(options, "slashes", why=why, unless=has_phones)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    _check_texts(options, targets)
    is_of_text = _reads_texts(options)
    todo, done = [], {}
    for source in sources:
        made = None if options.force else _done(source, targets, options)
        if made is None:
            todo.append(source)
        else:
            text = [source.path.with_suffix(".txt")] if is_of_text else []
            done[made] = [source.path, *text]
    say_done(done, len(sources))
    if not todo:
        return
    faults = Faults(len(sources))
    readable = [source for source in todo if is_there(source, faults)]
    if readable:
        _transcribe(options, form, readable, targets, faults)
    if targets:
        n_good = len(sources) - faults.n
        log.info("%d of %d recordings are transcribed", n_good, len(sources))
    faults.end()


def _check_question(options: argparse.Namespace) -> None:
    """What is wrong without a model being loaded for it."""
    from powsm.decode.recordings.question import parse_lang

    if options.text is not None and not TASKS[options.task].is_prompted:
        raise PowsmError(f"--text: {options.task} reads none; leave it out")
    parse_lang(options.lang)
    asked = options.profile
    options.is_asked = asked is not None  # else it depends on the model as well
    profile = find_profile(asked) if asked else default_profile(options.task)
    options.profile = _for_question(profile, options)


def _for_question(profile: Profile, options: argparse.Namespace) -> Profile:
    """A profile as the options have it decode."""
    return for_task(
        profile,
        options.task,
        has_text=options.text is not None,
        phones=None if options.phones is None else phone_set(options.phones),
        level=options.level,
    )


def _check_texts(options: argparse.Namespace, targets: dict[Source, Path]) -> None:
    """Outputs do not take the place of the texts that prompt."""
    if not _reads_texts(options):
        return
    for source, target in targets.items():
        if is_same(target, source.path.with_suffix(".txt")):
            raise RecordingsError(
                f"{printable(target)} is the text that {options.task} reads; write the "
                "results elsewhere by --out"
            )


def _reads_texts(options: argparse.Namespace) -> bool:
    """Whether each recording has a text file beside it."""
    task, prev = TASKS[options.task], options.profile.prev
    return task.is_prompted and prev == "gold" and options.text is None


def _done(
    source: Source, targets: dict[Source, Path], options: argparse.Namespace
) -> Path | None:
    """The file of its results, where they are all there."""
    if source not in targets:
        return None
    target = targets[source]
    made = [target]
    if options.channel == "each":
        # how many there are is known when it is read; the first is written last
        sides = {_of_channel(target, side) for side in (SIDES[0], "1")}
        made += sorted(sides.difference(targets.values()))
    return next((path for path in made if path.exists()), None)


def _transcribe(
    options: argparse.Namespace,
    form: str,
    sources: list[Source],
    targets: dict[Source, Path],
    faults: Faults,
) -> None:
    from tqdm import tqdm

    model = load_model(options)
    if model.recogniser.is_ctc_only and not options.is_asked:
        profile = default_profile(options.task, has_decoder=False)
        options.profile = _for_question(profile, options)
    question = model.question(
        options.task, options.lang, options.profile, has_text=options.text is not None
    )
    names = len(sources) > 1 or options.channel == "each"
    with tqdm(
        total=len(sources), desc="transcribe", unit="file", disable=is_quiet()
    ) as bar:
        for group in _groups(_read(options, model, sources, targets, faults, bar)):
            for part, result in _answers(options, model, question, group, faults):
                if part.target is None:
                    text = result.slashed if options.slashes else result.text
                    line = f"{printable(part.name)}\t{text}" if names else text
                    tqdm.write(line, file=sys.stdout)
                    sys.stdout.flush()
                else:
                    write_whole(
                        part.target, render(result, form, slashes=options.slashes)
                    )


def _read(options, model, sources, targets, faults, bar) -> Iterator[_Part]:
    """The recordings that can be used; the others are faults."""
    from powsm.decode.recordings.samples import long_enough

    for source in sources:
        try:
            parts = list(_channels(options, source, targets))
            for part in parts:
                long_enough(
                    *(part.speech, model.min_samples, str(source.path)),
                    is_levelled=options.profile.level == "usual",
                )
        except PowsmError as err:
            faults.add(err)
        else:
            yield from parts
        bar.update()


def _channels(options, source: Source, targets: dict[Source, Path]) -> Iterator[_Part]:
    from powsm.audio import n_channels_of
    from powsm.decode.recordings.stretches import Recording

    location, data = place_of(source)
    target = targets.get(source)
    if options.channel != "each":
        yield _Part(source, Recording(location, options.channel, data), target)
        return
    n_channels = n_channels_of(location, data)
    if n_channels == 1:
        yield _Part(source, Recording(location, None, data), target)
        return
    names = SIDES
    if n_channels > 2:  # of a meeting
        names = tuple(str(number) for number in range(1, n_channels + 1))
    own = {name: target and _of_channel(target, name) for name in names}
    for other, path in targets.items():
        if path in own.values():
            raise RecordingsError(
                f"{printable(source.path)}: a channel of it and "
                f"{printable(other.path)} would both be {printable(path)}; call it "
                "twice, with another --out"
            )
    sides = [(name, Recording(location, n, data)) for n, name in enumerate(names)]
    # the file of the first is written last: where it is, the others are, too
    for side, speech in sides if target is None else sides[::-1]:
        yield _Part(source, speech, own[side], side)


def _of_channel(target: Path, side: str) -> Path:
    return target.with_name(f"{target.stem}.{side}{target.suffix}")


def _groups(parts: Iterator[_Part]) -> Iterator[list[_Part]]:
    """Parts that are decoded together."""
    from powsm.decode.recordings.model import is_full

    group: list[_Part] = []
    for part in parts:
        group.append(part)
        if is_full(group):
            yield group
            group = []
    if group:
        yield group


def _answers(options, model, question, group: list[_Part], faults: Faults) -> list:
    """(part, result) of a group, in order; one that cannot be decoded is a fault."""
    from powsm.decode.recordings.samples import check_length
    from powsm.decode.recordings.stretches import trim_silence

    ready, jobs = [], []
    for part in group:
        try:
            text = options.text
            if _reads_texts(options):
                text = text_of(part.source, ".txt")
            speech, start_s = part.speech, 0.0
            if options.trim_silence:
                speech, start_s = trim_silence(speech)
                what = f"{part.source.path} without its silence"
                check_length(speech, model.min_samples, what)
            how = {"start_s": start_s, "window_s": options.window_s}
            jobs.append(model.job(question, part.utt_id, speech, text, **how))
            ready.append(part)
        except PowsmError as err:
            faults.add(err)
    how = {"with_times": options.format not in (None, "txt")}
    how |= {"window_s": options.window_s, "overlap_s": options.overlap_s}
    results = model.answer(question, jobs, **how)
    return [
        (part, replace(result, duration_s=part.seconds))
        for part, result in zip(ready, results, strict=True)
    ]
