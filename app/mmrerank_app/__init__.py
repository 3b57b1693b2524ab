"""The web page: one index, one language model, public names of mmrerank only."""
