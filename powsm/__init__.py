"""POWSM: a phonetic Whisper-style speech model, from data to scores."""

__version__ = "0.1.0"
