"""Who uses the page: logins of each kind, the users, their passwords and codes."""
