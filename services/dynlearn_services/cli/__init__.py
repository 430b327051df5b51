"""The command line: each command parses a configuration, calls one function and prints."""
