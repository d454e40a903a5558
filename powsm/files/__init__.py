"""Files as a whole or not at all, and the formats that everything else reads.

Nothing here knows what a phone, a task or a model is.

    audio_channels  several channels become one, and what is lost by it is said
    audio_containers  what an audio file's headers promise, held against its bytes
    audio_places  where the audio of an utterance lies in a shard, and its bytes
    audio_streams  FLAC, Ogg and MP3: the streams in a file, and if they are whole
    archives     archives of other people: checked member by member, unpacked once
    chunks       the files of a data directory cut into the same runs of utterances
    compiled     loops that are compiled, their machine code kept on disk
    current      is it up to date? a record of what was made, from what, and how
    datadir      data directories: a file per property, a line per utterance
    lock         who is writing what: a lock that ends with its process
    sort         lines in sorted order, more of them than fit in memory: GNU sort
    text         text that people wrote: UTF-8 with or without a byte order mark
    transcripts  transcripts of any system: Kaldi text, JSONL, CSV, TSV
    whole        whole files or none: atomic writing and content hashes
"""
