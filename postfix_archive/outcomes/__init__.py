"""What became of each recipient: the follower of the mail log and its reports."""
