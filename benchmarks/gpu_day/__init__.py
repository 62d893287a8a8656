"""The stages of gpu_day.py, each in a process of its own."""

# Seconds of each on a card and on a CPU; `gpu_day.<name>` holds its function `run`. What is left of
# the time goes to the last one.
STAGES = {
    "doctor": (60, 30),
    "card_tests": (180, 40),
    "road": (120, 90),
    "sampling_tables": (200, 90),
    "training_tables": (150, 60),
    "soak_test": (60, 40),
    "refusals": (60, 40),
    "long_run": (3600, 40),
}
