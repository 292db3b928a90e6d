"""What a training run will need on chips that are not here: memory, FLOPs and bytes between devices."""
