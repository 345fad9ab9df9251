"""The command postfix-archive: options, tables, progress bars. Each command is thin."""
