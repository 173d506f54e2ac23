"""What is fast and what holds, measured; each module is a command."""
