"""The picture-book world, its queries with truth, and the two models trained on it."""
