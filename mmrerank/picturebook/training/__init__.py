"""Training the models this package ships."""
