"""Postfix: configuration, commands, queue, services, SMTP and QMQP clients."""
