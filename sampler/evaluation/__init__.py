"""What synthetic images are worth: to a classifier, in distance, and beside the real records."""
