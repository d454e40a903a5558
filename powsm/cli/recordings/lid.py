"""Say which language is spoken in recordings, as the model hears it.

    powsm lid talk.wav
    powsm lid --n_best 3 --languages eng ita -- talks/

A line a recording: its name, the code of the likeliest language and its probability,
then the next ones. Recordings longer than 20 s are heard in windows, whose mean counts.
"""

import argparse
import sys

from powsm.audio_files import printable
from powsm.cli.options import whole
from powsm.cli.recordings.paths import (
    Faults,
    add_model,
    is_there,
    load_model,
    read_stdin,
    sources_of,
)
from powsm.errors import PowsmError
from powsm.files.audio_channels import CHANNELS


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="recording, folder, or -")
    add_model(parser)
    add("--languages", nargs="+", default=[], help="choose among these; default: all")
    add("--n_best", type=whole(1), default=1, help="languages that are shown")
    mixed = [channel for channel in CHANNELS if channel != "each"]
    add("--channel", choices=mixed, default="mix", help="of several (default: mix)")


def run(options: argparse.Namespace) -> None:
    from powsm.languages import lang_code

    among = [lang_code(name) or name for name in options.languages]
    sources = sources_of(options.paths)
    faults = Faults(len(sources))
    readable = [source for source in sources if is_there(source, faults)]
    if readable:
        model = load_model(options)
        from powsm.decode.recordings.samples import speech_of

        how = {"channel": options.channel, "min_samples": model.min_samples}
        for source in readable:
            try:
                audio = read_stdin() if source.is_stdin else source.path
                speech = speech_of(audio, name="-", **how)
            except PowsmError as err:
                faults.add(err)
                continue
            heard = list(model.heard_languages(speech, among).items())
            row = [printable(source.path)]
            for code, probability in heard[: options.n_best]:
                row += [code, f"{probability:.4f}"]
            print("\t".join(row))
            sys.stdout.flush()
    faults.end()
