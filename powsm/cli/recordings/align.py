"""Align what is said in recordings: when each word and each phone is said.

    powsm align --phones "pɔsəm" talk.wav                # IPA that is given
    powsm align --text "a possum" --lang eng talk.wav    # words
    powsm align --out aligned corpus/                    # a text beside each recording
    powsm align --tier utterance --format eaf --out aligned corpus/
    powsm align --gop --out aligned corpus/              # and how well each is said

Without --phones and --text each recording has its words in NAME.lab or NAME.txt beside
it, or in a tier of NAME.TextGrid or NAME.eaf, whose segments are aligned one by one.
Words become phones as the model hears them, or by --g2p espeak; --g2p none says that
the texts are IPA.

With --format or --out each recording has a file of its own, with the tiers words,
phones and confidence; without, CTM lines of the phones come on standard output. Done
ones are skipped. What cannot be aligned is named, and the status is then 1.

--gop adds the tiers gop and gop_free, in nats, and rival: below 0 another phone, the
rival, fits better. The phones of all recordings, the worst first, go to OUT/worst.tsv.
With --nearest, a phone that the model lacks is aligned by its nearest one by features,
which is said, and marked in the tier nearest.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from powsm.audio import SAMPLE_RATE
from powsm.audio_files import printable
from powsm.cli.options import refuse_unused
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
from powsm.decode.recordings.question import G2P, voice_for
from powsm.decode.recordings.result import ALIGNED_FORMS, ENDINGS
from powsm.errors import PowsmError
from powsm.files.audio_channels import CHANNELS
from powsm.files.text import read_text
from powsm.files.whole import write_whole

if TYPE_CHECKING:
    from powsm.corpora.evaluation.textgrid import Interval
    from powsm.decode.align_files import Segment

log = logging.getLogger(__name__)

_TEXTS = (".lab", ".txt")  # as the Montreal Forced Aligner names them
_SHOWN = 10  # phones of the report, and segments not aligned, that are logged


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="recording, folder, or -")
    add_model(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--phones", help="IPA that is said, or a file of it")
    what.add_argument("--text", help="words that are said, or a file of them")
    what.add_argument("--tier", help="of NAME.TextGrid or NAME.eaf; default: the only")
    g2p = "how words become phones (default: model); none: they are IPA"
    add("--g2p", choices=G2P, help=g2p)
    add("--lang", default="unk", help="code or name; unk (default); espeak needs one")
    add("--profile", help="decode profile of the model's g2p; default: joint")
    mixed = [channel for channel in CHANNELS if channel != "each"]
    add("--gop", action="store_true", help="judge how well each phone is said")
    nearest = "by the nearest phone, where the model lacks one"
    add("--nearest", action="store_true", help=nearest)
    add("--channel", choices=mixed, default="mix", help="of several (default: mix)")
    add("--format", choices=ALIGNED_FORMS, help="of the files; default: textgrid")
    add("--out", type=Path, help="folder for them; default: beside each recording")
    add("--force", action="store_true", help="write over files that are there")


class _Said(NamedTuple):
    """What is said in a recording: a text, or the stretches of a tier."""

    text: str | None
    file: Path | None
    tier: str | None
    stretches: "list[Interval]"


def run(options: argparse.Namespace) -> None:
    g2p = _g2p(options)
    sources = sources_of(options.paths)
    if len(sources) > 1 and (options.phones or options.text) is not None:
        raise PowsmError(
            f"--phones and --text are of one recording and there are {len(sources)}; "
            "write NAME.txt beside each"
        )
    targets = results_go_to(options, sources, ENDINGS[options.format or "textgrid"])
    if options.gop and (not targets or options.format == "ctm"):
        raise PowsmError(
            "--gop: lines of CTM have no place for how well a phone is said; give "
            "--format textgrid, csv, eaf or json, or --out"
        )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    faults = Faults(len(sources))
    said: dict[Source, _Said] = {}
    done: dict[Path, list[Path]] = {}
    for source in sources:
        try:
            what = _said(options, source)
            _check_target(what, targets.get(source))
        except PowsmError as err:
            faults.add(err)
            continue
        if source in targets and targets[source].exists() and not options.force:
            done[targets[source]] = [source.path, *([what.file] if what.file else [])]
        elif is_there(source, faults):
            said[source] = what
    say_done(done, len(sources))
    n_partly = _align_all(options, g2p, said, targets, faults) if said else 0
    if targets:
        n_good = len(sources) - faults.n
        partly = f", and {n_partly} in part" if n_partly else ""
        log.info("%d of %d recordings are aligned%s", n_good, len(sources), partly)
    faults.end()


def _g2p(options: argparse.Namespace) -> str:
    """How texts become phones; what makes no sense is refused before a model loads."""
    if options.phones is not None and options.g2p not in (None, "none"):
        raise PowsmError(f"--phones is IPA, of which --g2p {options.g2p} makes nothing")
    g2p = options.g2p or ("none" if options.phones is not None else "model")
    why = "the phones are not the model's"
    refuse_unused(options, "profile", why=why, unless=g2p == "model")
    why = "phones that are given need no language"
    refuse_unused(options, "lang", why=why, unless=g2p != "none")
    voice_for(g2p, options.lang)
    if options.profile is not None:
        from powsm.decode.profile import find_profile, for_task

        profile = find_profile(options.profile)
        options.profile = for_task(profile, "g2p", has_text=True)
    return g2p


def _said(options: argparse.Namespace, source: Source) -> _Said:
    """What is said in a recording, by the options or a file beside it.

    Raises:
        PowsmError: nothing says it, or the file that does cannot be used.
    """
    given = options.phones if options.text is None else options.text
    if given is not None:
        path = Path(given)
        is_file = len(os.fsencode(given)) < 256 and path.is_file()
        return _Said(_not_blank(read_text(path), path) if is_file else given, *_NONE)
    if options.tier is None:
        for ending in _TEXTS:
            text = text_of(source, ending)
            if text is not None:
                path = source.path.with_suffix(ending)
                return _Said(_not_blank(text, path), path, None, [])
    return _of_tier(options, source)


_NONE = (None, None, [])


def _not_blank(text: str, path: Path) -> str:
    if not text.strip():
        raise RecordingsError(f"{printable(path)}: no text in it")
    return text


def _of_tier(options: argparse.Namespace, source: Source) -> _Said:
    from powsm.corpora.tiers import TIER_ENDINGS, read_stretches

    for ending in () if source.is_stdin else TIER_ENDINGS:
        path = source.path.with_suffix(ending)
        if path.is_file():
            tier, stretches = read_stretches(path, options.tier)
            if not stretches:
                raise RecordingsError(f"{printable(path)}: tier {tier} holds no text")
            if (options.tier, tier) == (None, "phones") and options.g2p != "none":
                raise RecordingsError(
                    f"{printable(path)}: no words, its only tier is phones, as `powsm "
                    "transcribe` writes it; --g2p none aligns each of them, --tier "
                    "phones takes them for words"
                )
            return _Said(None, path, tier, stretches)
    endings = TIER_ENDINGS if options.tier else (*_TEXTS, *TIER_ENDINGS)
    raise RecordingsError(
        f"{printable(source.path)}: what is said? There is no file of its name with "
        f"{' '.join(dict.fromkeys(map(str.lower, endings)))}; write one, or give "
        "--phones or --text"
    )


def _check_target(said: _Said, target: Path | None) -> None:
    """Results do not take the place of what is aligned."""
    if target is not None and said.file is not None and is_same(target, said.file):
        raise RecordingsError(
            f"{printable(target)} is what is aligned; write the results elsewhere by "
            "--out"
        )


def _align_all(
    options: argparse.Namespace,
    g2p: str,
    said: dict[Source, _Said],
    targets: dict[Source, Path],
    faults: Faults,
) -> int:
    """Align recordings, and count those of which only a part could be."""
    from tqdm import tqdm

    model = load_model(options)
    from powsm.decode.recordings.words import Reader

    reader = Reader(model, g2p, options.lang, options.profile)
    phones: list[Segment] = []
    n_partly = 0
    bar = {"desc": "align", "unit": "file", "disable": is_quiet()}
    for source, what in tqdm(said.items(), **bar):
        try:
            aligned = _align(reader, options, source, what)
        except PowsmError as err:
            faults.add(err)
            continue
        if source in targets:
            write_whole(targets[source], aligned.to(options.format or "textgrid"))
        else:
            tqdm.write(aligned.to("ctm").rstrip("\n"), file=sys.stdout)
            sys.stdout.flush()
        if aligned.faults:
            n_partly += 1
            faults.add(
                f"{printable(source.path)}: {len(aligned.faults)} of "
                f"{len(what.stretches)} segments are not aligned: "
                + "; ".join(aligned.faults[:_SHOWN])
                + "; ..." * (len(aligned.faults) > _SHOWN)
            )
        if options.gop or options.nearest:
            phones += aligned.tiers["phones"]
            _say_nearest(printable(source.path), aligned.tiers["phones"])
    if options.nearest and len(said) > 1:
        _say_nearest(f"{len(said)} recordings", phones)
    if options.gop:
        _report(phones, options.out)
    return n_partly


def _say_nearest(where: str, phones: "list[Segment]") -> None:
    """Log which phones the model lacks, and what stands for them."""
    lacking = Counter((s.phone, s.nearest) for s in phones if s.nearest is not None)
    if lacking:
        log.warning(
            "%s: %d of %d phones have no token: %s",
            *(where, lacking.total(), len(phones)),
            ", ".join(f"{p} by {by} ({n})" for (p, by), n in lacking.most_common()),
        )


def _report(phones: "list[Segment]", out: Path | None) -> None:
    """Log the phones said worst; all go to `worst.tsv` where there is a place."""
    from powsm.decode.pronunciation.worst import worst_phones, worst_tsv

    scores = worst_phones(phones)
    log.info("%d phones judged; the worst said of %d:", len(phones), len(scores))
    for line in worst_tsv(scores[:_SHOWN]).splitlines():
        log.info("%s", line)
    if out is not None and scores:
        write_whole(out / "worst.tsv", worst_tsv(scores))


def _align(reader, options: argparse.Namespace, source: Source, said: _Said):
    from powsm.corpora.evaluation.textgrid import Interval
    from powsm.decode.recordings.aligned import align_recording
    from powsm.decode.recordings.samples import long_enough
    from powsm.decode.recordings.stretches import Recording

    location, data = place_of(source)
    speech = Recording(location, options.channel, data)
    long_enough(speech, reader.model.min_samples, str(source.path))
    stretches = said.stretches
    if said.text is not None:
        stretches = [Interval(0.0, len(speech) / SAMPLE_RATE, said.text)]
    how = {"gop": options.gop, "nearest": options.nearest}
    return align_recording(reader, source.name, speech, stretches, said.tier, **how)
