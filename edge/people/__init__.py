"""People in and out by the folder: what is put into a running appliance through its API, and what is written out."""
