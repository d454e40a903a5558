"""Whole files or none, data directories, archives, and sorting beyond memory.

archives  archives of other people: checked member by member, then unpacked once
chunks    cut the files of a data directory into the same runs of utterances, for ...
datadir   read, write and validate data directories: a file per property, a line ...
lock      who is writing what: a lock that ends with its process and says who holds it
sort      lines in sorted order, more of them than fit in memory: GNU sort, by bytes
whole     whole files or none: atomic writing and content hashes
"""
