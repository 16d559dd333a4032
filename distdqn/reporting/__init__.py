"""What a person reads of a run: display, summary, verdict, plots, pages."""
