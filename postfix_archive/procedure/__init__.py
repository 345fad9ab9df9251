"""The written procedure of an instance, for auditors: procedure.document."""
