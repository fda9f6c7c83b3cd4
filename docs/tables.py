"""Prints the tables of README.md and docs/results.md again, from the records under results/published."""

import re
from pathlib import Path

from results import leaderboard
from results.store import read_store

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/results.md")
TABLE = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def printed(page: str) -> str:
    """The page with every table as its records give it."""

    def table(found: re.Match[str]) -> str:
        board = leaderboard.of(read_store(ROOT / "results" / "published" / found[2]))
        return found[1] + board.render("markdown").strip() + "\n" + found[3]

    return TABLE.sub(table, (ROOT / page).read_text(encoding="utf-8"))


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / name).write_text(printed(name), encoding="utf-8")
