"""Scores as sacreBLEU computes them, of every sentence once."""

from __future__ import annotations

import sacrebleu

from equipoise.tasks.translation_scores import corpus_scores, of_all_processes


def test_the_scores_are_those_of_sacrebleu() -> None:
    translations, references = ["a b c d e", "one  two"], ["a b c d f", "one two "]
    scores, _ = corpus_scores(translations, references)
    assert scores["bleu"] == sacrebleu.corpus_bleu(translations, [references]).score
    assert scores["chrf"] == sacrebleu.corpus_chrf(translations, [references]).score
    assert scores["exact_match"] == 0
    assert corpus_scores(["one two\n"], references[1:])[0]["exact_match"] == 1
    assert corpus_scores(["", ""], references)[0] == {"bleu": 0, "chrf": 0, "exact_match": 0}


def test_texts_come_in_the_order_of_their_index() -> None:
    assert list(of_all_processes({7: "c", 0: "a", 3: "b"}).items()) == [
        (0, "a"),
        (3, "b"),
        (7, "c"),
    ]
