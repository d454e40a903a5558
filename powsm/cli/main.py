"""`powsm VERB OPTION...`: the table of verbs, each loaded when it is called."""

import importlib
import os
import sys
from collections.abc import Sequence

import powsm
from powsm.cli.run import run_command

# verb -> (module with `add_options` and `run`, what --help says), by group
VERBS = {
    "Stages of a recipe": {
        "tokens": ("stages.tokens", "symbols and SentencePiece models (stage 5)"),
        "start-from": ("stages.start_from", "vocabulary and weights of another model"),
        "stats": ("stages.stats", "mean and variance of features (stage 10)"),
        "train": ("stages.train", "train, or go on training (stage 11)"),
        "decode": ("stages.decode", "decode test sets with profiles (stage 12)"),
        "align-set": ("stages.align_set", "align decoded or reference phones of a set"),
        "score-exp": ("stages.score_exp", "score all that was decoded (stage 13)"),
        "report": ("stages.report", "RESULTS.md, pictures and page (stage 13)"),
        "pack": ("stages.pack", "pack a model for others (stage 14)"),
        "upload": ("stages.upload", "upload a packed model to the Hub (stage 15)"),
    },
    "With a model or its output in hand": {
        "transcribe": ("recordings.transcribe", "recordings to phones or words"),
        "align": ("recordings.align", "when each given word and phone is said"),
        "calibrate": (
            "recordings.calibrate",
            "boundaries of phones as people set them",
        ),
        "lid": ("recordings.lid", "which language is spoken"),
        "demo": ("recordings.demo", "a page in the browser, for this machine"),
        "ipa": ("ipa", "IPA as phones, with features"),
        "import": ("import_corpus", "your own speech as a corpus to train on"),
        "info": ("info", "what a model is"),
        "score": ("score", "score anyone's hypotheses"),
    },
    "Studies": {
        "weigh": ("weigh", "how often each utterance of a set is trained on"),
        "compare": ("compare", "two experiments, with paired intervals"),
        "ablate": ("ablate", "train and compare variants of a YAML file"),
        "reproduce": ("reproduce", "fill a published table with a model's scores"),
    },
    "This machine": {
        "check": ("check", "whether machine and data fit the planned stages"),
        "cost": ("cost", "what the stages of a recipe cost with these settings"),
        "ranks": ("stages.ranks", "run a command as several processes of this machine"),
        "submit": ("submit", "run a command as Slurm jobs and wait for them"),
        "current": ("stages.current", "whether a stage's command need not run again"),
    },
}


def overview() -> str:
    """What `powsm --help` prints."""
    parts = ["usage: powsm VERB [OPTION...]    (powsm VERB --help lists the options)"]
    for title, verbs in VERBS.items():
        rows = [f"  {verb:<12}{about}" for verb, (_, about) in verbs.items()]
        parts.append("\n".join([f"{title}:", *rows]))
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; the process ends with a status that is not 0 where it failed."""
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        # batches have all sizes, which fragment a GPU's memory; read when CUDA starts
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    verbs = {verb: row[0] for rows in VERBS.values() for verb, row in rows.items()}
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(powsm.__version__)
    elif name in verbs:
        module = importlib.import_module(f"powsm.cli.{verbs[name]}")
        about = module.__doc__
        run_command(f"powsm {name}", about, module.add_options, module.run, rest)
    else:
        from powsm.settings import nearest

        hint = nearest(name, verbs) or "; powsm --help lists the verbs"
        print(f"powsm: error: no verb {name!r}{hint}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main()
