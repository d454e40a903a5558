"""What an experiment was trained on, and going on with it or from its end.

differences  what differs between a training of before and one that is asked for
digests      what identifies the data of a training: sums over stretches of its files
go_on        a new experiment that begins with the last checkpoint of a finished one
record       an experiment is what it was trained on: compared before anything is ...
"""
