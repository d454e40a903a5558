"""The tables of the paper: what they show, and filling them from experiments.

claims    the paper's claims, the test of each, and whether it holds
costs     what a training takes, from its settings
fill      put experiments' scores into a published table, and say what stays empty ...
outputs   rows of other systems whose outputs come as files, a file a set
plan      what a table still needs: sets and decodings, with their time and disk
render    a filled table as Markdown, CSV and LaTeX
sets      sizes of published sets, and where they lie: `conf/tables/sets.yaml`
spec      descriptions of published tables, `conf/tables/*.yaml`, checked when read
systems   models as the tables see them: how they were trained, and their scores
training  which training a row is of, and whether a model is one of it
"""
