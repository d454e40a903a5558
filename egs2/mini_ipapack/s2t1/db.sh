# shellcheck shell=bash
# Where the data lie. Every path can be set in the environment instead.

# Folder with the ten asterisk-core-sounds-* Debian packages, unpacked, for a machine
# that has no apt-get and dpkg-deb. Empty: stage 0 fetches them.
ASTERISK_SOUNDS=${ASTERISK_SOUNDS:-}

# Folder with github.com/besacier/mboshi-french-parallel-corpus, training speech of
# run_world.sh. Empty: it does without.
MBOSHI=${MBOSHI:-}

# Not empty: run_world.sh also trains on 17 voices of flite and Festival, which have to be
# installed (powsm/corpora/small/voices.py). Empty: it does without.
VOICES=${VOICES:-}

# Folder of SpeechOcean762, of which run_world.sh then also takes the training part. The
# results in RESULTS.md are without it.
SPEECHOCEAN762_TRAIN=${SPEECHOCEAN762_TRAIN:-}
