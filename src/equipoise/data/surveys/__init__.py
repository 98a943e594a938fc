"""People whose values a survey asks for, and the queries about them."""
