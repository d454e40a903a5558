"""A page in the browser: speak or choose a recording, and see what models hear.

    powsm demo --model exp/x                  # then open the address that is printed
    powsm demo --model exp/x exp/y --profiles ctc_greedy joint

The spectrogram has the boundaries of the phones on it; a click on a phone says it and
names its features. TextGrid and JSON can be downloaded. Two models, or two decode
profiles, stand side by side. The page is for this machine alone (127.0.0.1), keeps no
recording and sends nothing elsewhere; from another machine, ssh -L 7860:127.0.0.1:7860.
"""

import argparse
import os
import threading
from pathlib import Path

from powsm.cli.options import number, whole
from powsm.cli.recordings.paths import DEFAULT_MODEL
from powsm.errors import PowsmError


def add_options(parser: argparse.ArgumentParser) -> None:
    from powsm.cli.options import MODEL

    add = parser.add_argument
    what = f"{MODEL}; default: $POWSM_MODEL, else {DEFAULT_MODEL}"
    add("--model", nargs="+", dest="models", help=what)
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--profiles", nargs="+", default=[], help="names or files, to choose from")
    add("--port", type=whole(), help="default: the first free one from 7860 on")
    add("--max_s", type=number(1, 600), default=60.0, help="longest recording")
    add("--max_mb", type=number(0.1, 500), default=20.0, help="largest file")


def run(options: argparse.Namespace) -> None:
    from powsm.model.light import import_espnet

    import_espnet()
    from powsm.decode.recordings.model import load
    from powsm.report.demo.bench import Bench
    from powsm.report.demo.server import serving

    sources = options.models or [os.environ.get("POWSM_MODEL") or DEFAULT_MODEL]
    names = [Path(source).name or source for source in sources]
    if len(set(names)) < len(names):
        names = sources
    if len(set(names)) < len(names):
        raise PowsmError(f"--model {' '.join(sources)}: one is named twice")
    models = {
        name: load(source, options.device)
        for name, source in zip(names, sources, strict=True)
    }
    bench = Bench(models, options.profiles, options.max_s)
    with serving(bench, port=options.port, max_mb=options.max_mb) as url:
        print(f"{url}    (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
