"""The small corpora that install from Debian packages, as Shar folders."""
