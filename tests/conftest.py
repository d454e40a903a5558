"""Builders of tests/ are importable from its sub-folders too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
