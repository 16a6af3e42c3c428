"""What the page says in words: the flat sheet goes in, lead names, lines of text, paper speed and gain come out.

`labels` finds lead names with a network, `text` and `recogniser` read lines of text, `statements` says what they state.
`weights` holds the numbers.
"""
