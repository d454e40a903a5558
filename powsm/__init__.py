"""POWSM: a phonetic Whisper-style speech model, from data to scores.

The package is a stair: a row imports only from the rows below it, and rooms of one
row do not know each other (tests/test_layers.py). docs/map.md is the longer guide.

    cli                                      the `powsm` command
    publish                                  packing, the model card, the Hub
    report                                   RESULTS.md, pages, the paper's tables
    train                                    batches, the loop around ESPnet's model
    decode                                   search, long recordings, alignment
    prepare cluster model                    stages 1 to 4; jobs; the network
    corpora vocabulary score                 what is read, said and measured
    tasks                                    a row for each task
    phones                                   the normaliser and its inventory
    languages audio audio_files hub          codes of languages; samples; downloads
    files settings formatting errors         whole files, YAML, numbers as text
"""

import importlib
import sys
from importlib.machinery import PathFinder

__version__ = "0.1.0"

# What `import powsm` offers, loaded when it is first asked for
_OFFERED = {
    "load": "powsm.decode.recordings.model",
    "align_words": "powsm.decode.recordings.aligned",
    "segment_ipa": "powsm.phones.normaliser",
    "score_phones": "powsm.score.metrics",
}


def __getattr__(name: str):
    if name in _OFFERED:
        return getattr(importlib.import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})


class _ImportOfESPnet:
    """Imports ESPnet without two things that cost seconds, or a line each time.

    For every function marked `@typechecked` typeguard compiles the whole module again:
    a third of the start of training, for what it trains with and for tasks that are
    none of ours. And ESPnet's attention prints a line where flash-attn is not
    installed, which no model here uses.
    """

    ATTENTION = "espnet2.legacy.nets.pytorch_backend.transformer.attention"
    LINE = "Failed to import Flash Attention"
    UNCHECKED = ("espnet2.tasks.", "espnet2.train.", "espnet2.iterators.")

    def find_spec(self, name: str, path: object = None, target: object = None):
        if name != self.ATTENTION and not name.startswith(self.UNCHECKED):
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._import(module, execute)
        return spec

    def _import(self, module, execute) -> None:
        if module.__name__ == self.ATTENTION:
            module.print = self._print  # in place of the built-in, there alone
            execute(module)
            return
        import typeguard

        marked = typeguard.typechecked
        typeguard.typechecked = _unchecked
        try:
            execute(module)
        finally:
            typeguard.typechecked = marked

    def _print(self, text: str, file=None) -> None:
        if not text.startswith(self.LINE):
            (file or sys.stdout).write(f"{text}\n")


def _unchecked(function=None, **_):
    """`typeguard.typechecked` as `python -O` has it: what is marked stays as it is."""
    return _unchecked if function is None else function


sys.meta_path.insert(0, _ImportOfESPnet())
