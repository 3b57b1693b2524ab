"""Language-model backends, one file each."""
