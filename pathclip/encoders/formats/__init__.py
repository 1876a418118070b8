"""Other projects' layouts, one file each; only their formats are used, none of their code."""
