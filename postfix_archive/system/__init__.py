"""The operating system: durable files, privileges, processes, schedulers."""
