"""Scores of experiments, and the published tables filled with them.

`results` reads `results.json`; `spec` reads the description of a published table;
`fill` puts an experiment's scores into it; `render` writes it for people.
"""
