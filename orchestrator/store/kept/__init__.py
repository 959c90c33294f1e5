"""Pictures that endpoints kept, and what persons say of them."""
