"""What an engine can serve and at what price, from its fitted laws and its minutes."""
