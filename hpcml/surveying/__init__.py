"""What a site says of itself when it is asked, and how that agrees with its profile."""
