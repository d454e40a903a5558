"""`powsm check --gpu`: what a card makes of our code, one section of figures each.

decoding   search and alignment on the card, beside ESPnet's own search and the CPU
kernels    what the card is, which attention it takes, and whether it computes as a CPU
loop       the trainer itself: updates, an end of memory, and going on
material   made-up recordings, tokens and batches of the usual lengths
measuring  time, memory, floating-point operations and waits of a piece of work
reading    how fast audio is read in the order of training: `powsm check --io`
sections   which sections there are, in what order, and how long they may take
steps      a training step of ours, compiled or not, and of ESPnet's model
"""
