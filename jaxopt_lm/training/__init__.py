"""Training: a pure step (`step`, `loss`) and the loop around it that touches files, clocks and signals (`loop`)."""
