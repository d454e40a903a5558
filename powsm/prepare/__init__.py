"""Stages 1 to 4: from shards to data directories to task-prompted examples.

audit          the data report of stage 2
copy_audio     stage 3, when asked for: copies of the audio that stock ESPnet reads
dump           stage 4: `data/<set>` -> `dump/raw/<set>`, filtered, normalised, ...
example_lines  compiled loops over the lines of a dump folder, for its index
filters        keep or drop an utterance, with a counted reason
index          an index of a dump folder: random access to its utterances
judge          one judgement of an utterance, by stage 4 and by the data report alike
merge          stage 1, second half: the parts of a set -> its data directory
shards         stage 1, first half: each shard becomes one sorted part file
subset         nested subsets of a training set, each language by its share of the whole
weights        how often each utterance comes in training: the file of `utt2weight`
"""
