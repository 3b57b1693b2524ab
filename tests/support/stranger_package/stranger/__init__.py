"""A package of somebody else's: one plug-in of each kind, written from `mmrerank.ports` alone."""
