"""The service: clips, plans, questions, streams and evaluations over HTTP, and the page that shows them. Needs the extra `serve`."""
