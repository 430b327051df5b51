"""The one table of routes, and all that is made from it: matching, access, the API's page."""
