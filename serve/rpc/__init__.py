"""Between messages and the domain, whatever the transport.

`pb` is generated; `convert` and `status` translate, `services` and `admin` are the methods, `interceptors` and
`credentials` surround them.
"""
