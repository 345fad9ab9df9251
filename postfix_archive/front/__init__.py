"""The doors: they speak with Postfix and with people, and decide nothing."""
