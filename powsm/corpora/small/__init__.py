"""The small corpora, most of which install from Debian packages, as Shar folders.

asterisk     Asterisk's telephone prompts in five languages
espeak       espeak-ng: phone labels for text, and speech with phone times
gnomehelp    GNOME's user guide, spoken by espeak-ng in five languages
gnomeworld   the same guide in 34 languages, with noise, tilt and level
held_out     languages and speakers that training is to lack
mboshi       a Bantu language in the field, with phones by its spelling; no package
packages     Debian packages as a source of speech: fetched and unpacked
speechocean  the training part of SpeechOcean762; no package
split        train, dev and test: stable, and without a text in two of them
stampworld   Tux Paint's captions in 18 languages more, spoken by espeak-ng
text_faults  is the text that comes with a recording what is said?
tuxpaint     Tux Paint's stamps: volunteers name pictures in nine languages
voices       the guide in 17 voices of flite and Festival, where those are installed
write_shar   write a corpus in IPAPack++'s layout
"""
