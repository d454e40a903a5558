"""When phones begin and end, of the frames that say them.

The modules:

    blanks  spans of frames grown into the blanks around them
    change  boundaries moved to where the sound changes most
"""
