"""What several folders need: networks, rows of results, new processes, titles and numbers.

Measures nothing and has no commands.
"""
