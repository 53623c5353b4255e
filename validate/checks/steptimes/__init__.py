"""Step times of the catalogue's GPUs against end-to-end rows that others measured and published."""
