"""A settings file as its author sees it: text comes in; where each setting stands, and what is wrong with it go out."""
