"""The data report of stage 2."""
