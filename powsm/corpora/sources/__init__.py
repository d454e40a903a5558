"""Corpora of other people's making, as Shar that the stages read.

item        one utterance of a source: its audio, and what is known of it
folders     recordings with a text, TextGrid or EAF beside each
tables      CSV, and Hugging Face datasets on disk
manifests   Kaldi folders, and the manifests of lhotse
bring       a source as a corpus: found out, checked, given IPA, split and written
"""
