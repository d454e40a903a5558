"""When phones begin and end, of the frames that say them.

The modules:

    pauses     which stretches of blanks are pauses, by how loud they are
    blanks     spans of frames grown into the blanks around them
    change     boundaries moved to where the sound changes most
    times      the three of them, one after the other
    stored     the times that a model was calibrated to, beside its weights
    calibrate  times chosen on boundaries that people set
"""
