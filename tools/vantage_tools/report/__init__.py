"""The report: what happened in the last minutes and hours, from the data that roles/report/files/collect.py collects."""
