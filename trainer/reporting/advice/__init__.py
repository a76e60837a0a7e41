"""The verdict on a model and the advice that follows from its measurements: `judge`.

Each rule reads the facts and returns one sentence with the command to try, or None. CAUSES and RULES list the rules,
the most useful first. A difference counts only where chance does not explain it: the 95 % intervals of two proportions
do not overlap, or a binomial test is significant (Bonferroni-corrected where it is applied to many).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer.reporting.advice import data_rules, training_rules
from trainer.reporting.advice.facts import Advice, Facts, Proportion, TrainingFacts
from trainer.reporting.advice.verdict import Grade, grade

__all__ = ["Advice", "Facts", "Judgement", "Proportion", "TrainingFacts", "judge"]

MAX_ADVICE = 3  # more is not read

Rule = Callable[[Facts], Advice | None]
# Where one of these applies, the findings of RULES are its consequences and are not shown.
CAUSES: tuple[Rule, ...] = (
    training_rules.learned_nothing,
    training_rules.too_few_steps,
    data_rules.swapped_classes,
)
RULES: tuple[Rule, ...] = (
    data_rules.does_not_generalize,
    training_rules.training_made_worse,
    training_rules.not_pretrained,
    training_rules.head_only,
    training_rules.limited,
    data_rules.label_issues,
    training_rules.cut_short,
    training_rules.still_improving,
    data_rules.test_below_validation,
    data_rules.unbalanced,
    data_rules.few_images,
    data_rules.more_images,
    data_rules.overfitting,
    data_rules.confused_classes,
    training_rules.stopped_early,
    data_rules.unreadable_files,
    data_rules.few_test_images,
)


@dataclass(frozen=True)
class Judgement:
    """The verdict on a model, its reason in one sentence, and at most MAX_ADVICE pieces of advice, the best first."""

    verdict: Grade
    reason: str
    advice: list[Advice]


def judge(facts: Facts) -> Judgement:
    """Verdict, reason and advice; the advice is empty where no measurement asks for any."""
    verdict, reason = grade(facts)
    advice = [found for rule in CAUSES if (found := rule(facts))]
    if not advice:
        advice = [found for rule in RULES if (found := rule(facts))]
    return Judgement(verdict, reason, advice[:MAX_ADVICE])
