"""What a run leaves behind: its folder, its tables, and what people read of them."""
