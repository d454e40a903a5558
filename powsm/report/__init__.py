"""What an experiment came to: `RESULTS.md`, pictures, and one self-contained page.

`experiment` reads the folder that stages 11 to 13 filled; `markdown`, `plots` and
`page` each make one form of the report from it.
"""
