"""How representations are learned: one method a file, named after it."""
