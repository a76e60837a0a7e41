"""Help of `trainer fit`: its options in groups, those that most people need first."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

GROUPS = {
    "Options that most people need": (
        *("--dataset", "--time-limit", "--model", "--epochs", "--image-size"),
        *("--limit", "--class-weights", "--name", "--resume", "--promote"),
    ),
    "Training": (
        *("--weights", "--fine-tune", "--batch-size", "--learning-rate", "--optimizer", "--weight-decay", "--dropout"),
        *("--kernel-size", "--resize", "--normalize", "--augment", "--flip", "--precision", "--seed", "--start-from"),
    ),
}
OTHERS = "Files, store and output"


class FitCommand(TyperCommand):
    """The command with its options in GROUPS, in their order; the rest is in OTHERS."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the argument, then a section for each group."""
        arguments, others = [], []
        by_flag = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            elif any(parameter.opts[0] in flags for flags in GROUPS.values()):
                by_flag[parameter.opts[0]] = record
            else:
                others.append(record)
        sections = {
            "Arguments": arguments,
            **{group: [by_flag[flag] for flag in flags] for group, flags in GROUPS.items()},
            OTHERS: others,
        }
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
