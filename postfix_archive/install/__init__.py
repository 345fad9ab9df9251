"""make install and make uninstall: options, plan, program files, undo."""
