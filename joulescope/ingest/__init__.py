"""Takes in what engines send: the listening socket, one session per connection, and trace files."""
