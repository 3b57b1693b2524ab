"""Typed filters over what an index knows about its images: read, checked, matched, and made into SQL."""
