"""From the files of runs to figures."""
