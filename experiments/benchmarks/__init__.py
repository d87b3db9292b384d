"""What rnnreg costs beside its peers; each benchmark has a command line of its own."""
