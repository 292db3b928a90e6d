"""What a run keeps on disk: its folder, checkpoints, metrics; and what is shown and sent while it trains."""
