"""What `gan train --profile` prints: a step of training, layer by layer."""

from rich.table import Table

from ganinfer.cli.console import console
from gantrain.game.config import Config
from gantrain.training.profile import profile_training

_PIPED = 1000  # columns of a table that nobody looks at in a terminal


def show_step(recipe: Config) -> None:
    """Train a few steps and print the table, the three dearest layers, and what was left out."""
    with console.status("training some steps"):
        step = profile_training(recipe)
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for column in ("forward ms", "backward ms", "of step", "MMAC", "of rate"):
        table.add_column(column, justify="right")
    for layer in step.layers:
        rate = step.share_of_rate(layer)
        table.add_row(
            layer.name,
            f"{layer.forward_ms:.2f}",
            f"{layer.backward_ms:.2f}",
            f"{layer.ms / step.profiled_ms:.1%}",
            f"{layer.macs / 1e6:,.0f}" if layer.macs else "",
            "" if rate is None else f"{rate:.0%}",
        )
    table.add_section()
    for name, spent in step.parts.items():
        table.add_row(name, f"{spent:.2f}", "", f"{spent / step.profiled_ms:.1%}", "", "")
    console.print(table, width=None if console.is_terminal else _PIPED)
    macs = sum(layer.macs for layer in step.layers)
    rate = macs / step.step_ms / 1e6
    console.print(
        f"a step of {step.batch_size} images on {step.device} in {step.precision}:"
        f" {step.step_ms:.1f} ms, {1000 * step.batch_size / step.step_ms:,.0f} images/s,"
        f" {rate / step.gmacs_per_s:.0%} of {step.gmacs_per_s:,.0f} GMAC/s, the rate of products of"
        f" matrices; {step.profiled_ms:.1f} ms with the profiler, of {step.num_steps} steps",
        soft_wrap=True,
    )
    for layer in step.costliest:
        share = layer.ms / step.profiled_ms
        console.print(f"{layer.name} takes {share:.0%}: {step.why(layer)}", soft_wrap=True)
    console.print(f"left out: {'; '.join(step.left_out)}", soft_wrap=True)
