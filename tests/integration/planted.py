"""Words of no language in every row of a task's source files: what leaves the store must not hold one of them."""

import csv
from pathlib import Path

# Without digits (each digit is a token of its own) and each in every row, so that the vocabulary of the toy model learns them.
PLANTED = {
    "Patient Note": "Zqwvexpatient",
    "Question": "Zqwvexquestion",
    "Relevant Entities": "Zqwvexentity",
    "Ground Truth Explanation": "Zqwvextrace",
}
MARK = b"zqwvex"


def plant(folder: Path) -> None:
    """Put the planted words into every row of every file, where the reader keeps the rows as they are."""
    for path in folder.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["Patient Note"] += f" Seen with {PLANTED['Patient Note']}."
            row["Question"] += f" Asked by {PLANTED['Question']}."
            row["Relevant Entities"] = row["Relevant Entities"].removesuffix("}") + f", '{PLANTED['Relevant Entities']}': True}}"
            row["Ground Truth Explanation"] = row["Ground Truth Explanation"].replace("</think>", f"; {PLANTED['Ground Truth Explanation']}</think>")
        write(path, rows)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
