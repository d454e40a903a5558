"""What training may do to a recording before the model hears it: `augment:` in YAML.

apply      speed, reverberation and noise of a recording, from counters alone
noise      stretches of noise: from a folder of recordings, white or pink
settings   what `augment:` asks for, and what is wrong with it
"""
