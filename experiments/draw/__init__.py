"""How rows are shown: pictures, and tables for the terminal and for text files.

Reads rows and writes PNG and text files. Trains nothing, prunes nothing, and stores no row.
"""
