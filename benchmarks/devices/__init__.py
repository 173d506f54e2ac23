"""Whether masks stay the same on several devices and in several processes. CPU devices only.

Differing entries are what counts; the seconds that are noted include compiling. Speed: see speed/.
"""
