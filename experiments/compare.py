"""Several runs side by side: their curves, their last and best numbers, and what differs between their configs.

    python -m experiments.compare runs/digits runs/digits_fixed --out=runs/compared

Reads `config.json`, `metrics.jsonl` and `summary.json` of each run folder, whatever trained there, finished or not, and
asks nobody else. Writes below --out `index.html`, `comparison.csv` (a line a run), `comparison.tex` and a PNG of each
figure, and prints the table. An earlier call's files are replaced, and anybody else's are not.
"""

import pathlib

import tqdm
from absl import flags

from experiments import command, output
from ssl_jax import comparison, report_comparison
from ssl_jax.types import UsageError

OUT = flags.DEFINE_string("out", "", "The folder for the page and the tables: a new one, or an earlier call's.")


def main(arguments):
    """Reads, draws, writes, prints."""
    folders = [pathlib.Path(word) for word in arguments[1:]]
    if len(folders) < 2 or not OUT.value:
        raise UsageError("needs two run folders or more, and --out: python -m experiments.compare RUN RUN --out=DIR")
    out = output.claim(pathlib.Path(OUT.value), "comparison.json", "experiments.compare")
    compared = comparison.read(folders)
    drawings = report_comparison.drawings(compared)
    drawn = list(tqdm.tqdm(drawings, desc="figures", unit=" figures", disable=None))
    contents = {
        "index.html": report_comparison.write(compared, drawn).encode(),
        "comparison.csv": report_comparison.as_csv(compared).encode(),
        "comparison.tex": report_comparison.as_latex(compared).encode(),
        **{f"figures/{drawing.file}": drawing.figure.png for drawing in drawn},
    }
    facts = {"runs": [str(run.folder) for run in compared.runs]}
    out.begin(list(contents), facts)
    for name, content in contents.items():
        out.write(name, content)
    out.finish(list(contents), facts)
    print(report_comparison.as_text(compared))
    print(f"\n{out.folder / 'index.html'} has the curves, {out.folder} the tables and {len(drawn)} figures as files")


if __name__ == "__main__":
    command.run(main)
