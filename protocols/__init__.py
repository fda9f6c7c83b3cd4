"""How representations are judged: one protocol a file, named after it."""
