"""Work of commands once their options are read: they call the library and print. Torch comes in here, no earlier."""
