"""Networks trained on public images, by tasks that look like a hospital's."""
