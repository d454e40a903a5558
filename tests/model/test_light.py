"""Importing ESPnet says nothing of a kernel that we do not use, and nothing less."""

import subprocess
import sys

PROGRAM = """
import sys
import types
import powsm

sys.modules["flash_attn"] = types.ModuleType("flash_attn")  # lacks what ESPnet wants
import espnet2.legacy.nets.pytorch_backend.transformer.attention as attention

attention.MultiHeadedAttention(4, 8, 0.0)
attention.print("something else", file=sys.stderr)
"""


def test_flash_attention_that_is_not_installed_is_no_news():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "something else\n")
