"""The page on which a library is looked at; it leaves requests, and changes nothing itself."""
