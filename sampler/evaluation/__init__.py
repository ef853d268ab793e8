"""The quality of synthetic images: for classifiers, in distances, and beside the real records."""
