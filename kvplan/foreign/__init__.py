"""What others wrote: their files, read within bounds, and their text, made safe to show. The floor of the house: it imports no room."""
