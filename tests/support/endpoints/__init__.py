"""Every operation of the five services, called: one table a service, by the operation's name in the OpenAPI document.

Examples, fuzz and races are driven from the documents, and take from these tables how an operation is called so that it
does what it is for. An operation without a line here fails `tests/unit/openapi`.
"""
