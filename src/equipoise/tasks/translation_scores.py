"""Scores of the translations of a whole split, gathered from all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from equipoise.data.text.vocabulary import package
from equipoise.equilibrium.processes import from_all_processes

CORPUS_SCORES = ("bleu", "chrf", "exact_match")
WITHOUT_SACREBLEU = (
    "Scoring translations needs the package sacrebleu: pip install 'equipoise[translation]'."
)


def sacrebleu() -> ModuleType:
    """The package. Raises UserError where it is not installed."""
    return package("sacrebleu", WITHOUT_SACREBLEU)


def corpus_scores(
    translations: Sequence[str], references: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """bleu and chrf (0 to 100) and exact_match (0 to 1) of a corpus, and sacreBLEU's signatures.

    White space at the ends of a sentence does not count for exact_match.
    """
    metrics = sacrebleu().metrics
    judges = {"bleu": metrics.BLEU(force=True), "chrf": metrics.CHRF()}
    scores = {
        name: float(judge.corpus_score(translations, [references]).score)
        for name, judge in judges.items()
    }
    pairs = zip(translations, references, strict=True)
    matches = sum(one.strip() == other.strip() for one, other in pairs)
    scores["exact_match"] = matches / len(references)
    return scores, {name: str(judge.get_signature()) for name, judge in judges.items()}


def of_all_processes(texts: Mapping[int, str]) -> dict[int, str]:
    """The texts of all processes in the order of their indices; duplicates count once."""
    parts = from_all_processes(dict(texts))
    return dict(sorted(item for part in parts for item in part.items()))


def sample(pair: tuple[str, str], translation: str) -> dict[str, str]:
    """One sentence for the report."""
    return {"source": pair[0], "reference": pair[1], "translation": translation}
