"""The shapes on the wire, one module for each service that answers with them; see `apps.common.shapes`."""
