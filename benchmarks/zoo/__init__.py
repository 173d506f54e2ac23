"""Networks of other packages, unchanged and narrow: are they pruned as they come?

Needs the packages of the extra `zoo`, which the library does not need. A row is one network; what
fails is written into the row, and the others go on.
"""
