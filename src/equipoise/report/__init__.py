"""What is drawn and tabled of a run or a sweep: pictures, the page, tables on the screen."""
