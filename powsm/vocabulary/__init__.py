"""Symbols, SentencePiece, the tokenizer, and sets of phones to decode with."""
