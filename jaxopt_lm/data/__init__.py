"""From text to batches: tasks (`tasks`, `prepare`), tokens on disk (`tokens`), and batch(step) (`batches`)."""
