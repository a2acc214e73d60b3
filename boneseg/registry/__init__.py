"""Publishing models and finding them again."""
