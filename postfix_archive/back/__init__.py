"""What makes things true: disk and network. Foreign errors become ours here."""
