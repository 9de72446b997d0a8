"""One visual language for reports, plots and the console: colours of heads, a style sheet, charts."""
