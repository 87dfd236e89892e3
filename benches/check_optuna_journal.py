#!/usr/bin/env python3
"""Loads the journal of a `limbeck tune` with Optuna, and goes on from it.

    pip install optuna
    python check_optuna_journal.py FOLDER

Prints the trials. Exit code 1 if Optuna cannot load the study, if its trials or their best differ from limbeck's own
`trials.csv`, or if Optuna cannot ask for and tell another trial (in a copy; the folder stays as it is).
"""

import csv
import pathlib
import shutil
import sys
import tempfile

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

NAMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def load(journal):
    return optuna.load_study(study_name="limbeck", storage=JournalStorage(JournalFileBackend(str(journal))))


def same(text, value):
    """Whether a cell of the table is this value: numbers are written so that they read back to the last bit."""
    if isinstance(value, bool) or isinstance(value, str):
        return text == str(value).lower() or text == value
    return float(text) == value


def check(folder, journal):
    study = load(journal)
    with open(folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(study.trials), f"{len(rows)} rows, {len(study.trials)} trials"
    for row, trial in zip(rows, study.trials):
        assert int(row["trial"]) == trial.number
        assert row["state"] == NAMES[trial.state.name], (row, trial.state)
        assert all(same(row[key], value) for key, value in trial.params.items()), (row, trial.params)
        assert int(row["epochs"]) == max(trial.intermediate_values, default=0)
        if trial.state == TrialState.COMPLETE:
            assert float(row["value"]) == trial.value, (row, trial.value)
        print(trial.number, trial.state.name, trial.value, trial.params, f"{len(trial.intermediate_values)} epochs")
    best = f"{study.best_trial.number} of {len(rows)}"
    assert f"trial {best}:" in (folder / "best.toml").read_text().splitlines()[0], best
    print(study.direction.name, study.best_value, study.best_params)

    first = next(trial for trial in study.trials if trial.state == TrialState.COMPLETE)
    study.sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=1)
    asked = study.ask(first.distributions)
    assert set(asked.params) == set(first.params), asked.params
    asked.report(first.value, 1)
    study.tell(asked, first.value)
    again = load(journal).trials[-1]
    assert again.state == TrialState.COMPLETE and again.params == asked.params
    print("asked and told:", again.params)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    source = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as copy:
        check(source, shutil.copy(source / "journal.log", copy))
