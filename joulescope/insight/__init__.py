"""What follows from the accounts: why joules changed, what an engine would do under another load."""
