"""ESPnet's modules without PyTorch's compiler, for programs that only decode.

`import espnet2` marks one function as not to be compiled, for which PyTorch loads its
whole compiler: 2 to 3 seconds of computing before a word is heard. Nothing here is
compiled, so the mark is left off while ESPnet is imported.
"""

import sys

import torch


def import_espnet() -> None:
    """Import ESPnet's model, unless it is there already."""
    if "espnet2.s2t.espnet_model" in sys.modules:
        return
    mark = torch.compiler.disable
    torch.compiler.disable = _unmarked
    try:
        import espnet2.s2t.espnet_model  # noqa: F401
    finally:
        torch.compiler.disable = mark


def _unmarked(function=None, **_):
    return _unmarked if function is None else function
