"""Where else a run's record goes: a file for each program that people watch their runs with."""
