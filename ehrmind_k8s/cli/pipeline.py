"""`ehrmind pipeline`: the recipe in Kubeflow Pipelines."""

import click

from ehrmind_k8s.cli import compare, compile, schedule, step, upload


@click.group(short_help="Bring the recipe to Kubeflow Pipelines.")
def command() -> None:
    """Bring the recipe to Kubeflow Pipelines.

    The settings EHRMIND_KFP_* say where it is and who you are there. One run: ehrmind submit --backend kfp.

    \b
    Examples:
      ehrmind pipeline upload
      ehrmind pipeline schedule --task medcalc --preset tiny --every 24h
    """


command.add_command(compile.command, "compile")
command.add_command(upload.command, "upload")
command.add_command(schedule.command, "schedule")
command.add_command(schedule.schedules, "schedules")
command.add_command(step.command, "step")
command.add_command(compare.command, "compare")
