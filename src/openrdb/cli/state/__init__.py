"""What commands do in the state of a data directory, whether or not it is being served."""
