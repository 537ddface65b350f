"""Which codes are an outcome: everything below a subtask's root concepts, by the source's own hierarchy.

A hierarchy is CONCEPT_ANCESTOR beside CONCEPT (OMOP), or `parent_codes` in metadata/codes.parquet (MEDS). Without one, STAND_INS name codes
of the same meaning in the vocabularies that hospitals write: LOINC for results, ICD-10-CM and ICD-9-CM for diagnoses (prefixes, so I21
covers I21.09). They are narrower than the roots, and labels made from them are near to the benchmark's, not equal.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet

from ehrmind_k8s.tasks.ehrshot import concepts

# Root concepts of the benchmark's labelers (ehrshot_tasks.json of the facts; som-shahlab/ehrshot-benchmark, labelers/ehrshot.py).
ROOTS: Mapping[str, tuple[str, ...]] = {
    "lab_thrombocytopenia": ("LOINC/LP393218-5", "LOINC/LG32892-8", "LOINC/777-3"),
    "lab_hyperkalemia": ("LOINC/LG7931-1", "LOINC/LP386618-5", "LOINC/LG10990-6", "LOINC/6298-4", "LOINC/2823-3"),
    "lab_hypoglycemia": ("SNOMED/33747003", "LOINC/LP416145-3", "LOINC/14749-6"),
    "lab_hyponatremia": ("LOINC/LG11363-5", "LOINC/2951-2", "LOINC/2947-0"),
    "lab_anemia": ("LOINC/LP392452-1",),
    "new_hypertension": ("SNOMED/59621000",),
    "new_hyperlipidemia": ("SNOMED/55822004",),
    "new_pancan": ("SNOMED/372003004",),
    "new_celiac": ("SNOMED/396331005",),
    "new_lupus": ("SNOMED/55464009",),
    "new_acutemi": ("SNOMED/57054005",),
}
# Platelets, potassium, glucose, sodium and hemoglobin in blood, serum or plasma; then ICD chapters of the six diagnoses.
STAND_INS: Mapping[str, tuple[str, ...]] = {
    "lab_thrombocytopenia": ("LOINC/777-3", "LOINC/26515-7", "LOINC/778-1"),
    "lab_hyperkalemia": ("LOINC/2823-3", "LOINC/6298-4", "LOINC/2824-1"),
    "lab_hypoglycemia": ("LOINC/2345-7", "LOINC/2339-0", "LOINC/41653-7", "LOINC/14749-6"),
    "lab_hyponatremia": ("LOINC/2951-2", "LOINC/2947-0"),
    "lab_anemia": ("LOINC/718-7", "LOINC/20509-6", "LOINC/30313-1"),
    "new_hypertension": ("ICD10CM/I10", "ICD9CM/401"),
    "new_hyperlipidemia": (
        *("ICD10CM/E78.0", "ICD10CM/E78.1", "ICD10CM/E78.2", "ICD10CM/E78.4", "ICD10CM/E78.5"),
        *("ICD9CM/272.0", "ICD9CM/272.1", "ICD9CM/272.2", "ICD9CM/272.4"),
    ),
    "new_pancan": ("ICD10CM/C25", "ICD9CM/157"),
    "new_celiac": ("ICD10CM/K90.0", "ICD9CM/579.0"),
    "new_lupus": ("ICD10CM/M32", "ICD9CM/710.0"),
    "new_acutemi": ("ICD10CM/I21", "ICD9CM/410"),
}
INPATIENT = ("Visit/IP", "Visit/ERIP")  # the second where an emergency visit became an admission; the benchmark's own records have only the first
# Care sites of EHRSHOT with ICU in their name, which its files do not tell (labelers/omop.py). Elsewhere descriptions tell.
ICU_SITES = frozenset(
    f"CARE_SITE/{number}"
    for number in (
        *(7928195, 7928227, 7928450, 7928457, 7928619, 7928650, 7928675, 7928759, 7928810, 7928852, 7929149, 7929179, 7929351),
        *(7929727, 7930176, 7930225, 7930385, 7930600, 7930670, 7930681, 7930857, 7930924, 7930934, 7931186, 7931420),
    )
)
_ICU = re.compile(r"\bICU\b|intensive care|critical care", re.IGNORECASE)
_PREFIXED = ("ICD10CM/", "ICD9CM/")

Descendants = Mapping[str, frozenset[str]]


class Vocabulary:
    """Which of a source's codes mean what, as masks over them (length C). A mask is made once."""

    def __init__(self, codes: Sequence[str], described: Mapping[str, str], descendants: Descendants) -> None:
        self._codes, self._descendants = codes, descendants
        self._masks: dict[str, np.ndarray] = {}
        self.inpatient = np.array([code in INPATIENT for code in codes], dtype=bool)
        self.death = np.array([code.startswith("MEDS_DEATH") for code in codes], dtype=bool)
        self.icu = np.array([code in ICU_SITES or bool(_ICU.search(described.get(code, code))) for code in codes], dtype=bool)

    def outcome(self, subtask: str) -> np.ndarray:
        """Codes that are a subtask's result or diagnosis."""
        if subtask not in self._masks:
            below = frozenset[str]().union(*(self._descendants.get(root, ()) for root in ROOTS[subtask]))
            wanted = below | set(ROOTS[subtask]) if below else frozenset()
            self._masks[subtask] = np.array([code in wanted if wanted else _stands_in(code, subtask) for code in self._codes], dtype=bool)
        return self._masks[subtask]

    def source(self, subtask: str) -> str:
        """Whose word the codes of an outcome are, for the audit: `hierarchy` or `stand_ins`."""
        return "hierarchy" if any(self._descendants.get(root) for root in ROOTS[subtask]) else "stand_ins"


def hierarchy(source: Path) -> Descendants:
    """Root concept -> all codes below it, from what the source brings; empty where it brings nothing."""
    roots = frozenset(root for roots in ROOTS.values() for root in roots)
    concept, ancestor, codes = (concepts.files(source, name) for name in ("concept", "concept_ancestor", "codes"))
    if concept and ancestor:
        return _from_omop(concept, ancestor, roots)
    meds = [path for path in codes if path.suffix == ".parquet" and "parent_codes" in concepts.column_names(path)]
    return _from_meds(meds[0], roots) if meds else {}


def _stands_in(code: str, subtask: str) -> bool:
    if code in ROOTS[subtask]:
        return True
    return any(code.startswith(s) if s.startswith(_PREFIXED) else code == s for s in STAND_INS[subtask])


def _from_meds(path: Path, roots: Iterable[str]) -> dict[str, frozenset[str]]:
    table = pyarrow.parquet.read_table(path, columns=["code", "parent_codes"])
    children: dict[str, list[str]] = {}
    for code, parents in zip(table["code"].to_pylist(), table["parent_codes"].to_pylist(), strict=True):
        for parent in parents or ():
            children.setdefault(parent, []).append(code)
    return {root: below for root in roots if (below := _all_below(root, children))}


def _all_below(root: str, children: Mapping[str, Sequence[str]]) -> frozenset[str]:
    found: set[str] = set()
    ahead = [root]
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return frozenset(found)


def _from_omop(concept: Sequence[Path], ancestor: Sequence[Path], roots: frozenset[str]) -> dict[str, frozenset[str]]:
    """CONCEPT_ANCESTOR has tens of millions of rows, so both tables are read batch by batch and only rows below a root are kept."""
    code_of: dict[int, str] = {}
    for path, batch in _batches(concept, ("concept_id", "vocabulary_id", "concept_code")):
        made = pc.binary_join_element_wise(batch["vocabulary_id"], batch["concept_code"], "/").to_pylist()
        code_of |= dict(zip(concepts.integers(batch["concept_id"], path.name, "concept_id").tolist(), made, strict=True))
    wanted = {id_: code for id_, code in code_of.items() if code in roots}
    below: dict[str, set[str]] = {code: set() for code in wanted.values()}
    for path, batch in _batches(ancestor, ("ancestor_concept_id", "descendant_concept_id")):
        above, under = (concepts.integers(batch[c], path.name, c) for c in ("ancestor_concept_id", "descendant_concept_id"))
        kept = np.isin(above, list(wanted))
        for a, d in zip(above[kept].tolist(), under[kept].tolist(), strict=True):
            if d in code_of:
                below[wanted[a]].add(code_of[d])
    return {root: frozenset(codes) for root, codes in below.items() if codes}


def _batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files:
        yield from ((path, batch) for batch in concepts.batches(path, columns))
