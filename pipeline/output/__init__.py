"""A digitization goes in; files and pictures for people come out."""
