"""Verbs that hear recordings: files, folders, standard input.

paths       recordings that a command is given, and where outputs go
transcribe  recordings of any length
align       when each given word and phone is said
calibrate   where a model's phones begin, by labels
lid         the language of recordings
demo        a page in the browser
"""
