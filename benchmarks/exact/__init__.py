"""Results checked against those of others, where the tests have no time for it or lack a package.

Masks against the PyTorch reference, damaged files against a second reader, and flow mode on models
of Hugging Face Transformers. Seconds are noted and not compared. The same masks on several devices:
see devices/.
"""
