"""An open image: its state, its watch, and the path of its reads and writes."""
