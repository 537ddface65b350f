"""Which codes are an outcome: everything below a subtask's root concepts, by the source's own hierarchy.

A hierarchy is CONCEPT_ANCESTOR beside CONCEPT (OMOP), or `parent_codes` in metadata/codes.parquet (MEDS). Without one, STAND_INS name codes
of the same meaning in the vocabularies that hospitals write: LOINC for results, ICD-10-CM and ICD-9-CM for diagnoses (prefixes, so I21
covers I21.09). They are narrower than the roots, and labels made from them are near to the benchmark's, not equal. OMOP writes diagnoses as SNOMED,
so there they stand in for nothing: without CONCEPT_ANCESTOR every patient would count as not diagnosed, and that is refused.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ehrmind_k8s.errors import DataError
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
    """Which of a source's codes mean what, as masks over them (length C). A mask is made once.

    `standard`: the source codes an event by its standard concept (SNOMED for a diagnosis) and by its own code only where there is none, as OMOP
    does. ICD codes cannot then stand in for what is below a root, but are the only word on events that no hierarchy places.
    """

    def __init__(self, codes: Sequence[str], described: Mapping[str, str], descendants: Descendants, standard: bool = False) -> None:
        self._codes, self._descendants, self._standard = codes, descendants, standard
        self._masks: dict[str, np.ndarray] = {}
        self.inpatient = np.array([code in INPATIENT for code in codes], dtype=bool)
        self.death = np.array([code.startswith("MEDS_DEATH") for code in codes], dtype=bool)
        self.icu = np.array([code in ICU_SITES or bool(_ICU.search(described.get(code, code))) for code in codes], dtype=bool)

    def outcome(self, subtask: str) -> np.ndarray:
        """Codes that are a subtask's result or diagnosis."""
        if subtask not in self._masks:
            below = frozenset[str]().union(*(self._descendants.get(root, ()) for root in ROOTS[subtask]))
            wanted = below | set(ROOTS[subtask]) if below else frozenset()
            found = [self._means(code, subtask, wanted) for code in self._codes]
            self._masks[subtask] = np.array(found, dtype=bool)
        return self._masks[subtask]

    def _means(self, code: str, subtask: str, wanted: frozenset[str]) -> bool:
        if code in wanted:
            return True
        unplaced = not wanted or (self._standard and code.startswith(_PREFIXED))
        return unplaced and _stands_in(code, subtask)

    def refusal(self, subtask: str) -> str | None:
        """Why the source's codes cannot tell a subtask's outcome; None where they can. Results are LOINC in OMOP too, so those can."""
        if self._standard and subtask.startswith("new_") and self.source(subtask) == "stand_ins":
            return "its diagnoses are standard concepts, and no CONCEPT_ANCESTOR says which are below this one; put Athena's beside CONCEPT"
        return None

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
    children: dict[str, list[str]] = {}
    for batch in concepts.batches(path, ("code", "parent_codes")):
        kind = batch["parent_codes"].type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise DataError(f"{path.name}: column parent_codes is {kind}, expected lists of texts")
        for code, parents in zip(concepts.texts(batch, "code", path.name).to_pylist(), batch["parent_codes"].to_pylist(), strict=True):
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
    """CONCEPT_ANCESTOR has tens of millions of rows and CONCEPT millions, so both are read batch by batch: CONCEPT for the ids of the roots, then
    CONCEPT_ANCESTOR for the ids below them, then CONCEPT again for the codes of those. Nothing else is kept.
    """
    root_of = _coded(concept, lambda ids, codes: pc.is_in(codes, value_set=pa.array(sorted(roots))))
    below: dict[str, list[np.ndarray]] = {code: [] for code in root_of.values()}
    for path, batch in _batches(ancestor, ("ancestor_concept_id", "descendant_concept_id")):
        above, under = (
            concepts.integers(concepts.needed(batch, c, path.name), path.name, c) for c in ("ancestor_concept_id", "descendant_concept_id")
        )
        for id_ in np.intersect1d(above, list(root_of)).tolist():
            below[root_of[id_]].append(under[above == id_])
    wanted = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(ids for parts in below.values() for ids in parts)]))
    code_of = _coded(concept, lambda ids, codes: pa.array(np.isin(ids, wanted)))
    found = {root: {code_of[id_] for ids in parts for id_ in ids.tolist() if id_ in code_of} for root, parts in below.items()}
    return {root: frozenset(codes) for root, codes in found.items() if codes}


def _coded(files: Sequence[Path], kept: Callable[[np.ndarray, pa.Array], pa.Array]) -> dict[int, str]:
    """Id -> code of the rows of CONCEPT that `kept` chooses by ids and codes."""
    found: dict[int, str] = {}
    for path, batch in _batches(files, ("concept_id", "vocabulary_id", "concept_code")):
        ids = concepts.integers(concepts.needed(batch, "concept_id", path.name), path.name, "concept_id")
        codes = concepts.made_codes(batch, path.name)
        mask = kept(ids, codes)
        found |= dict(zip(ids[mask.to_numpy(zero_copy_only=False)].tolist(), codes.filter(mask).to_pylist(), strict=True))
    return found


def _batches(files: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in files:
        yield from ((path, batch) for batch in concepts.batches(path, columns))
