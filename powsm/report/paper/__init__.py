"""The tables of the paper: what they show, and filling them from experiments.

fill    put an experiment's scores into a published table, and say what stays empty ...
plan    what a table still needs: sets and decodings, with their time and disk
render  a filled table as Markdown, CSV and LaTeX
spec    descriptions of published tables, `conf/tables/*.yaml`, checked when read
training  which training a row stands for, and whether a model is one of it
"""
