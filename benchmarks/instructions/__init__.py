"""Instruction counts of the ten hottest paths, and the bound that they are held to.

Time says little on a busy machine; how many instructions a call takes is the same there, to less
than a percent. valgrind counts them. `counts.json` keeps a ratio for each path: its instructions
per call, divided by those of a fixed piece of plain Python that is counted in the same process. A
faster build of Python, or a C library that chooses other code for another processor, moves both, if
not by the same part: the file says with which versions its figures were made, and so does whoever
complains of others.
"""
