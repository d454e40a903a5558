"""When phones begin and end, of the frames that say them.

The modules:

    pauses  which stretches of blanks are pauses, by how loud they are
    blanks  spans of frames grown into the blanks around them
    change  boundaries moved to where the sound changes most
"""
