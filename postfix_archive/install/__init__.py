"""install and uninstall, for make and cli: options, plan, program files, undo."""
