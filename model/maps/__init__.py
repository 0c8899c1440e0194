"""Maps: vectors, their generalisation, the one style, and classes read back from pixels."""
