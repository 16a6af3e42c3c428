"""Lead names and traced rows go in; the layout, its columns and its leads come out."""
