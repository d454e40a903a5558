"""The page of `powsm demo`: a recording in the browser, and what models hear in it.

bench   models and ways to decode, a recording within bounds, and what is weak
heard   what was heard as a page of its own: spectrogram, phones, sound, files
server  the page around it by Gradio, served to this machine alone
"""
