"""What people look at beside an answer: the inputs that encoders see, and a recording's windows in a row."""
