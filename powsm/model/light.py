"""ESPnet's modules without PyTorch's compiler, for programs that only decode.

`import espnet2` marks one function as not to be compiled, for which PyTorch loads its
whole compiler: 2 to 3 seconds of computing before a word is heard. Nothing here is
compiled, so the mark is left off while ESPnet is imported.
"""

import sys
from contextlib import redirect_stderr
from io import StringIO

import torch


def import_espnet() -> None:
    """Import ESPnet's model, unless it is there already.

    What it prints about an attention kernel that is not installed is left out: models
    are built with PyTorch's own.
    """
    if "espnet2.s2t.espnet_model" in sys.modules:
        return
    mark = torch.compiler.disable
    torch.compiler.disable = _unmarked
    try:
        with redirect_stderr(StringIO()):
            import espnet2.legacy.nets.pytorch_backend.transformer.attention
            import espnet2.s2t.espnet_model  # noqa: F401
    finally:
        torch.compiler.disable = mark


def _unmarked(function=None, **_):
    return _unmarked if function is None else function
