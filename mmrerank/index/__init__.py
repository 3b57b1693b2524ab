"""The index on disk: manifest, records, vectors, and stores that search them."""
