"""Series of many channels over time: files of numbers, and how their samples become rows."""
