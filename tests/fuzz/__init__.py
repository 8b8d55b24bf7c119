"""Fuzzing of everything that reads what others wrote: bytes in, a value or a declared error out.

`make fuzz` gives 1 000 000 inputs to Atheris, which looks for inputs that reach new code; `make
test` gives a few hundred fixed ones to Hypothesis. Both feed the functions of `targets`.
"""
